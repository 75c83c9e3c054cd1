//! Names of the 1000 ImageNet classes.
//!
//! Split when the crate is compiled, so that a label is a plain `&'static str`.

use crate::WeightSource;

const COUNT: usize = 1000;

/// Names of the ImageNet classes in the order of torchvision's, timm's and Keras' outputs.
///
/// ```
/// assert_eq!(mobilenet::pretrained::IMAGENET_LABELS[285], "Egyptian cat");
/// ```
pub static IMAGENET_LABELS: [&str; COUNT] = lines(include_str!("imagenet_classes.txt"));

/// The class names in the order of a source's outputs: TF-slim and Hugging Face have `background` in front.
///
/// ```
/// use mobilenet::{WeightSource, pretrained::imagenet_labels};
/// assert_eq!(imagenet_labels(WeightSource::TfSlim).nth(286), Some("Egyptian cat"));
/// assert_eq!(imagenet_labels(WeightSource::TfSlim).count(), WeightSource::TfSlim.imagenet_classes());
/// ```
pub fn imagenet_labels(source: WeightSource) -> impl Iterator<Item = &'static str> {
    std::iter::repeat_n("background", source.class_offset()).chain(IMAGENET_LABELS)
}

/// The lines of a text that has exactly [`COUNT`], each ended by a line feed.
const fn lines(text: &'static str) -> [&'static str; COUNT] {
    let mut labels = [""; COUNT];
    let (mut rest, mut count, mut end) = (text, 0, 0);
    while end < rest.len() {
        if rest.as_bytes()[end] == b'\n' {
            let (line, tail) = rest.split_at(end);
            labels[count] = line;
            rest = tail.split_at(1).1;
            (count, end) = (count + 1, 0);
        } else {
            end += 1;
        }
    }
    assert!(count == COUNT && rest.is_empty(), "the list of classes must have 1000 lines");
    labels
}
