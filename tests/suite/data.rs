//! Image folders, splits, augmentation and loaders: what a folder may hold, and that a seed decides every bit.

use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ::image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use mobilenet::data::{
    Augmentation, Batch, ColourJitter, ImageFolder, LastBatch, Loader, LoaderBuilder, OnUnreadable, Sample, Source,
};
use mobilenet::image::Image;
use mobilenet::preprocess::{Filter, Preprocess, Resize};
use mobilenet::{Architecture, Error, Result, WeightSource};

const SIZE: u32 = 16;

fn preprocess() -> Preprocess {
    Preprocess::of(WeightSource::Torchvision, Architecture::MobileNetV2).size(SIZE)
}

/// A photo that differs from pixel to pixel and from `seed` to `seed`.
fn photo(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x * 7 + seed, y * 5 + seed * 31, x * y + seed * 3].map(low)))
}

fn low(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

fn sample(seed: u32, label: usize) -> Sample {
    Sample::new(Image::try_from(photo(seed, 20 + seed % 13, 18 + seed % 7)).unwrap(), label)
}

/// Classes of these sizes, in memory.
fn set(counts: &[usize]) -> ImageFolder {
    let labels = counts.iter().enumerate().flat_map(|(label, &count)| std::iter::repeat_n(label, count));
    let samples = labels.zip(0..).map(|(label, seed)| sample(seed, label));
    ImageFolder::from_samples((0..counts.len()).map(|class| format!("class {class}")), samples).unwrap()
}

fn save(image: impl Into<DynamicImage>, path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // The extension may lie or be in upper case.
    image.into().save_with_format(path, ::image::ImageFormat::Png).unwrap();
}

fn collect(loader: &Loader, epoch: u64) -> Vec<Batch> {
    loader.epoch(epoch).collect::<Result<_>>().unwrap()
}

fn labels(batches: &[Batch]) -> Vec<Vec<usize>> {
    batches.iter().map(|(_, labels)| labels.clone()).collect()
}

/// Fails if `work` hangs, which a test of its own would not.
fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it neither hangs nor panics")
}

#[test]
fn folder_lists_classes_and_files_in_order() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for path in ["dog/b.png", "dog/a.PNG", "dog/deep/er/c.JpEg", "cat/1.jpg", ".cache/1.png", "cat/.thumb.png"] {
        save(photo(1, 4, 4), &at(path));
    }
    for path in ["dog/notes.txt", "dog/png", "stray.png"] {
        std::fs::write(at(path), "no image").unwrap();
    }
    std::fs::create_dir(at("cat/folder.png")).unwrap();
    let images = ImageFolder::open(root.path()).unwrap();
    assert_eq!(images.classes(), ["cat", "dog"]);
    let found: Vec<(String, usize)> = images
        .samples()
        .iter()
        .map(|sample| {
            let Source::File(path) = sample.source() else { panic!("{sample:?}") };
            let path = path.strip_prefix(root.path()).unwrap().iter().map(|part| part.to_str().unwrap());
            (path.collect::<Vec<_>>().join("/"), sample.label())
        })
        .collect();
    let expected = [("cat/1.jpg", 0), ("dog/a.PNG", 1), ("dog/b.png", 1), ("dog/deep/er/c.JpEg", 1)];
    assert_eq!(found, expected.map(|(path, label)| (path.to_string(), label)));
    assert!(images.samples().iter().all(|sample| sample.load().is_ok()));
}

#[test]
fn folders_without_images_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(ImageFolder::open(root.path().join("none")), Err(Error::Io { .. })));
    save(photo(1, 4, 4), &root.path().join("alone.png"));
    assert!(matches!(ImageFolder::open(root.path().join("alone.png")), Err(Error::Io { .. })));
    assert!(matches!(ImageFolder::open(root.path()), Err(Error::Format { .. })));
    save(photo(1, 4, 4), &root.path().join("full/1.png"));
    for class in ["empty", "void/deep"] {
        std::fs::create_dir_all(root.path().join(class)).unwrap();
    }
    match ImageFolder::open(root.path()) {
        Err(Error::Format { reason, .. }) => {
            assert!(reason.contains("empty") && reason.contains("void") && !reason.contains("full"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sets_of_ones_own_are_checked() {
    let from = |classes: &[&str], labels: &[usize]| {
        ImageFolder::from_samples(classes.iter().copied(), labels.iter().map(|&label| sample(0, label)))
    };
    assert!(matches!(from(&[], &[]), Err(Error::Invalid { .. })));
    assert!(matches!(from(&["a"], &[0, 1]), Err(Error::Invalid { argument: "label", .. })));
    match from(&["a", "b", "c"], &[0, 0]) {
        Err(Error::Invalid { found, .. }) => assert_eq!(found, "b, c"),
        other => panic!("{other:?}"),
    }
    let images = from(&["a", "b"], &[1, 0, 1]).unwrap();
    assert_eq!((images.len(), images.is_empty(), images.class_counts()), (3, false, vec![1, 2]));
}

#[test]
fn alpha_becomes_white_and_other_colour_types_stay() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("1.png");
    let loaded = |image: DynamicImage| {
        save(image, &path);
        Sample::new(path.as_path(), 0).load().unwrap().as_rgb().to_vec()
    };
    let rgba = RgbaImage::from_fn(3, 1, |x, _| Rgba([0, 100, 200, [0, 128, 255][x as usize]]));
    let mixed = [255, 255, 255, 127, 177, 227, 0, 100, 200];
    assert_eq!(loaded(rgba.clone().into()), mixed);
    // Of 16-bit samples the high byte counts.
    let wide = DynamicImage::from(rgba).into_rgba16();
    assert_eq!(loaded(wide.into()), mixed);
    let grey_alpha = ::image::GrayAlphaImage::from_raw(2, 1, vec![9, 0, 9, 255]).unwrap();
    assert_eq!(loaded(grey_alpha.into()), [255, 255, 255, 9, 9, 9]);
    assert_eq!(loaded(GrayImage::from_pixel(1, 1, Luma([7])).into()), [7; 3]);
    assert_eq!(loaded(photo(3, 5, 2).into()), photo(3, 5, 2).into_raw());
    let grey_16 = ::image::ImageBuffer::<Luma<u16>, _>::from_raw(1, 1, vec![0xc8ff]).unwrap();
    assert_eq!(loaded(grey_16.into()), [0xc8; 3]);
}

#[test]
fn palettes_with_transparent_entries_are_composited() {
    /// A chunk: length, name, data, CRC 32.
    fn chunk(name: [u8; 4], data: &[u8]) -> Vec<u8> {
        let body = [&name, data].concat();
        let crc = !body.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        });
        [&u32::try_from(data.len()).unwrap().to_be_bytes(), &body[..], &crc.to_be_bytes()].concat()
    }
    // One row of the palette's entries 0 and 1, stored without compression; the last four bytes are its Adler 32.
    let row = [0x78, 0x01, 1, 3, 0, 0xfc, 0xff, 0, 0, 1, 0, 4, 0, 2];
    let bytes = |transparent: &[u8]| {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        bytes.extend(chunk(*b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 8, 3, 0, 0, 0]));
        bytes.extend(chunk(*b"PLTE", &[10, 20, 30, 40, 50, 60]));
        if !transparent.is_empty() {
            bytes.extend(chunk(*b"tRNS", transparent));
        }
        bytes.extend(chunk(*b"IDAT", &row));
        bytes.extend(chunk(*b"IEND", &[]));
        bytes
    };
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("palette.png");
    for (transparent, expected) in [(&[][..], [10, 20, 30, 40, 50, 60]), (&[0], [255, 255, 255, 40, 50, 60])] {
        std::fs::write(&path, bytes(transparent)).unwrap();
        assert_eq!(Sample::new(path.as_path(), 0).load().unwrap().as_rgb(), expected);
    }
}

#[test]
fn split_is_stratified_disjoint_and_seeded() {
    let images = set(&[20, 10, 3]);
    let (train, validation) = images.split(0.3, 5).unwrap();
    assert_eq!((train.class_counts(), validation.class_counts()), (vec![14, 7, 2], vec![6, 3, 1]));
    let mut all: Vec<&Sample> = train.samples().iter().chain(validation.samples()).collect();
    all.sort_by_key(|sample| images.samples().iter().position(|other| other == *sample));
    assert!(all.into_iter().eq(images.samples()));
    assert_eq!(images.split(0.3, 5).unwrap(), (train, validation.clone()));
    assert_ne!(images.split(0.3, 6).unwrap().1, validation);
    // One image of each class stays, however large the fraction.
    assert_eq!(images.split(0.999, 5).unwrap().0.class_counts(), [1, 1, 1]);
    for fraction in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY, 0.001] {
        assert!(matches!(images.split(fraction, 5), Err(Error::Invalid { .. })), "{fraction}");
    }
    assert!(matches!(set(&[1, 1]).split(0.5, 5), Err(Error::Invalid { .. })));
}

#[test]
fn folds_validate_every_image_once() {
    let images = set(&[11, 7, 5]);
    let folds = images.folds(5, 3).unwrap();
    assert_eq!(folds.len(), 5);
    for (train, validation) in &folds {
        assert_eq!(train.len() + validation.len(), images.len());
        assert!((4..=5).contains(&validation.len()), "{}", validation.len());
        let counts = validation.class_counts();
        assert!((2..=3).contains(&counts[0]) && (1..=2).contains(&counts[1]) && counts[2] == 1, "{counts:?}");
    }
    for sample in images.samples() {
        assert_eq!(folds.iter().filter(|(_, validation)| validation.samples().contains(sample)).count(), 1);
        assert_eq!(folds.iter().filter(|(train, _)| train.samples().contains(sample)).count(), 4);
    }
    assert_eq!(images.folds(5, 3).unwrap(), folds);
    assert_ne!(images.folds(5, 4).unwrap(), folds);
    for k in [0, 1, 6, usize::MAX] {
        assert!(matches!(images.folds(k, 3), Err(Error::Invalid { .. })), "{k}");
    }
}

#[test]
fn evaluation_is_the_preprocessing_in_order() {
    let images = set(&[3, 4]);
    for source in WeightSource::ALL {
        let preprocess = Preprocess::of(source, Architecture::MobileNetV1).size(SIZE);
        let loader = Loader::builder(images.clone(), preprocess.clone()).batch_size(3).workers(2).build().unwrap();
        let batches = collect(&loader, 0);
        assert_eq!(labels(&batches), [vec![0, 0, 0], vec![1, 1, 1], vec![1]]);
        assert_eq!(loader.batches(), 3);
        let found: Vec<f32> = batches.iter().flat_map(|(inputs, _)| inputs.as_slice().to_vec()).collect();
        let expected: Vec<f32> = images
            .samples()
            .iter()
            .flat_map(|sample| preprocess.apply(&sample.load().unwrap()).unwrap().into_vec())
            .collect();
        assert_eq!(found, expected);
        // Without augmentation a training image is the same; every epoch of an evaluation is.
        let none = Augmentation::none().apply(&images.samples()[0].load().unwrap(), &preprocess, 9).unwrap();
        assert_eq!(none.as_slice(), &found[..none.as_slice().len()]);
        assert_eq!(collect(&loader, 1), batches);
    }
}

#[test]
fn batches_depend_on_seed_and_epoch_alone() {
    let images = set(&[9, 8]);
    let loader = |workers, seed| {
        let builder = Loader::builder(images.clone(), preprocess()).training(Augmentation::light(), seed);
        builder.batch_size(4).workers(workers).build().unwrap()
    };
    let expected: Vec<Vec<Batch>> = (0..3).map(|epoch| collect(&loader(1, 7), epoch)).collect();
    for workers in [1, 2, 3, 40] {
        // Later epochs first: nothing is carried from one to the next.
        for epoch in [2, 0, 1] {
            assert_eq!(collect(&loader(workers, 7), epoch), expected[usize::try_from(epoch).unwrap()], "{workers}");
        }
    }
    assert_ne!(labels(&expected[0]), labels(&expected[1]));
    assert_ne!(expected[0], collect(&loader(2, 8), 0));
    for batches in &expected {
        let mut labels = labels(batches).concat();
        labels.sort_unstable();
        assert_eq!(labels, [[0; 9].as_slice(), &[1; 8]].concat());
    }
}

#[test]
fn samples_are_augmented_anew_in_each_epoch() {
    let images = set(&[1]);
    let augmentation = Augmentation::new().resized_crop(0.2..=0.8);
    let loader = Loader::builder(images, preprocess()).training(augmentation, 7).build().unwrap();
    assert_ne!(collect(&loader, 0), collect(&loader, 1));
}

#[test]
fn incomplete_batch_is_kept_or_dropped() {
    let loader = |last| Loader::builder(set(&[10]), preprocess()).batch_size(4).last_batch(last).build().unwrap();
    let sizes = |loader: &Loader| collect(loader, 0).iter().map(|(_, labels)| labels.len()).collect::<Vec<_>>();
    let (keep, drop) = (loader(LastBatch::Keep), loader(LastBatch::Drop));
    assert_eq!((sizes(&keep), keep.batches()), (vec![4, 4, 2], 3));
    assert_eq!((sizes(&drop), drop.batches()), (vec![4, 4], 2));
}

/// A folder of ten readable images in two classes, and some that are not.
fn folder_with_damage(root: &Path) -> ImageFolder {
    for index in 0..10 {
        save(photo(index, 20, 20), &root.join(format!("class {}/{index}.png", index % 2)));
    }
    let whole = std::fs::read(root.join("class 0/0.png")).unwrap();
    std::fs::write(root.join("class 0/1 cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(root.join("class 1/2 text.jpg"), "text").unwrap();
    std::fs::write(root.join("class 1/empty.png"), "").unwrap();
    ImageFolder::open(root).unwrap()
}

#[test]
fn unreadable_images_are_skipped_with_a_report() {
    let root = tempfile::tempdir().unwrap();
    let images = folder_with_damage(root.path());
    assert_eq!(images.len(), 13);
    for workers in [1, 2, 3] {
        let builder = Loader::builder(images.clone(), preprocess()).batch_size(4).workers(workers);
        let loader = builder.build().unwrap();
        assert!(loader.unreadable().is_empty());
        // The next readable images fill the batches.
        assert_eq!(labels(&collect(&loader, 0)), [vec![0, 0, 0, 0], vec![0, 1, 1, 1], vec![1, 1]]);
        collect(&loader, 1);
        let reasons: Vec<String> = loader.unreadable().iter().map(ToString::to_string).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        for (reason, name) in reasons.iter().zip(["1 cut.png", "2 text.jpg", "empty.png"]) {
            assert!(reason.contains(name), "{reason} does not name {name}");
        }
    }
}

#[test]
fn unreadable_image_is_an_error_on_request() {
    let root = tempfile::tempdir().unwrap();
    let images = folder_with_damage(root.path());
    let builder = Loader::builder(images, preprocess()).batch_size(1).workers(2);
    let loader = builder.on_unreadable(OnUnreadable::Fail).build().unwrap();
    let mut epoch = loader.epoch(0);
    assert!(epoch.next().unwrap().is_ok());
    match epoch.next() {
        Some(Err(Error::Format { reason, .. })) => assert!(reason.contains("1 cut.png"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(epoch.next().is_none());
}

#[test]
fn epoch_without_a_batch_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("class")).unwrap();
    for index in 0..3 {
        std::fs::write(root.path().join(format!("class/{index}.png")), "text").unwrap();
    }
    let builder = || Loader::builder(ImageFolder::open(root.path()).unwrap(), preprocess()).batch_size(2);
    for loader in [builder(), builder().last_batch(LastBatch::Drop)] {
        let loader = loader.build().unwrap();
        let mut epoch = loader.epoch(0);
        assert!(matches!(epoch.next(), Some(Err(Error::Invalid { .. }))));
        assert!(epoch.next().is_none());
        assert_eq!(loader.unreadable().len(), 3);
    }
    // One that can be read makes a batch of one, but not a whole batch of two.
    save(photo(1, 9, 9), &root.path().join("class/9.png"));
    assert_eq!(labels(&collect(&builder().build().unwrap(), 0)), [[0]]);
    let whole = builder().last_batch(LastBatch::Drop).build().unwrap();
    assert!(matches!(whole.epoch(0).next(), Some(Err(Error::Invalid { .. }))));
}

#[test]
fn dropping_an_epoch_early_does_not_hang() {
    let images = set(&[200]);
    within_a_minute(move || {
        for workers in [1, 3] {
            let loader = Loader::builder(images.clone(), preprocess()).batch_size(2).workers(workers).build().unwrap();
            drop(loader.epoch(0));
            assert_eq!(loader.epoch(0).take(3).count(), 3);
            // The iterator outlives its loader.
            let epoch = loader.epoch(1);
            drop(loader);
            assert_eq!(epoch.count(), 100);
        }
    });
}

#[test]
fn one_pixel_goes_through_everything() {
    let image = Image::from_rgb(vec![200, 100, 50], 1, 1).unwrap();
    for source in WeightSource::ALL {
        let preprocess = Preprocess::of(source, Architecture::MobileNetV2).size(SIZE);
        for augmentation in [Augmentation::none(), Augmentation::imagenet(), Augmentation::light()] {
            let input = augmentation.apply(&image, &preprocess, 3).unwrap();
            assert_eq!(input.shape(), preprocess.output_shape());
            assert!(input.as_slice().iter().all(|value| value.is_finite()));
        }
        // Of one colour, cropping and mirroring change nothing.
        let input = Augmentation::imagenet().apply(&image, &preprocess, 3).unwrap();
        let expected = preprocess.apply(&image).unwrap();
        assert!(input.as_slice().iter().zip(expected.as_slice()).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn flip_mirrors_exactly_and_as_often_as_asked() {
    let image = Image::try_from(photo(5, 31, 17)).unwrap();
    let preprocess = preprocess();
    let plain = preprocess.apply(&image).unwrap();
    let mut mirrored = plain.clone().into_array();
    mirrored.invert_axis(mobilenet::ndarray::Axis(2));
    let mirrored = mobilenet::Tensor::from(mirrored);
    assert_ne!(mirrored, plain);
    let count = |probability: f64| {
        let flip = Augmentation::new().flip(probability);
        let inputs = (0..400).map(|seed| flip.apply(&image, &preprocess, seed).unwrap());
        inputs.inspect(|input| assert!([&plain, &mirrored].contains(&input))).filter(|input| *input == mirrored).count()
    };
    assert_eq!((count(0.0), count(1.0)), (0, 400));
    // Five standard deviations of a binomial count.
    assert!(count(0.5).abs_diff(200) < 50);
}

#[test]
fn crop_is_the_resized_rectangle() {
    // Red and green tell the place; so the crop's corners and size can be read off what comes out.
    let (width, height) = (250, 200);
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([low(x), low(y), 0]));
    let image = Image::try_from(image).unwrap();
    let preprocess = Preprocess::new(Resize::Whole { filter: Filter::Bilinear }, 64);
    let augmentation = Augmentation::new().resized_crop(0.25..=0.5);
    let mut least: f32 = 1.0;
    let mut most: f32 = 0.0;
    for seed in 0..300 {
        let input = augmentation.apply(&image, &preprocess, seed).unwrap();
        let at = |y: usize, x: usize, channel: usize| input.view()[[0, y, x, channel]] * 255.0;
        // From 16 to 48 of 64 is half of each side, away from the edges.
        let (w, h) = (2.0 * (at(32, 48, 0) - at(32, 16, 0)), 2.0 * (at(48, 32, 1) - at(16, 32, 1)));
        let area = w * h / 50_000.0;
        // Bytes are rounded: an error of one in a half side of at least 43 pixels, on either side.
        assert!((0.25 * 0.95..=0.5 * 1.05).contains(&area), "seed {seed}: {w} x {h}");
        assert!((0.75 * 0.95..=1.05 / 0.75).contains(&(w / h)), "seed {seed}: {w} x {h}");
        (least, most) = (least.min(area), most.max(area));
    }
    assert!(least < 0.27 && most > 0.48, "areas from {least} to {most}");
}

#[test]
fn jitter_changes_colours_within_its_amount() {
    let image = Image::from_rgb([100, 100, 100].repeat(64), 8, 8).unwrap();
    let preprocess = Preprocess::new(Resize::Whole { filter: Filter::Bilinear }, 8);
    let brightness = Augmentation::new().colour_jitter(ColourJitter { brightness: 0.5, ..ColourJitter::default() });
    let values: Vec<f32> = (0..500)
        .map(|seed| {
            let input = brightness.apply(&image, &preprocess, seed).unwrap();
            assert_eq!(input.as_slice(), [input.as_slice()[0]; 8 * 8 * 3]);
            input.as_slice()[0] * 255.0
        })
        .collect();
    let (least, most) = (values.iter().copied().fold(255.0, f32::min), values.iter().copied().fold(0.0, f32::max));
    assert!((49.5..52.0).contains(&least) && (147.0..150.5).contains(&most), "{least} to {most}");
    // Grey of one tone has neither contrast nor saturation to change.
    let others = ColourJitter { brightness: 0.0, contrast: 0.5, saturation: 0.5 };
    let input = Augmentation::new().colour_jitter(others).apply(&image, &preprocess, 1).unwrap();
    assert_eq!(input, preprocess.apply(&image).unwrap());
}

#[test]
fn settings_out_of_range_are_refused() {
    let jitter = |amount| Augmentation::new().colour_jitter(ColourJitter { contrast: amount, ..Default::default() });
    let image = Image::from_rgb(vec![0; 3], 1, 1).unwrap();
    for bad in [
        Augmentation::new().resized_crop(0.0..=1.0),
        Augmentation::new().resized_crop(0.5..=1.5),
        Augmentation::new().resized_crop(0.8..=0.5),
        Augmentation::new().resized_crop(f64::NAN..=1.0),
        Augmentation::imagenet().ratio(0.0..=1.0),
        Augmentation::imagenet().ratio(1.0..=f64::INFINITY),
        Augmentation::imagenet().ratio(2.0..=1.0),
        Augmentation::new().flip(-0.1),
        Augmentation::new().flip(f64::NAN),
        jitter(-1.0),
        jitter(f64::NAN),
        jitter(f64::INFINITY),
    ] {
        assert!(matches!(bad.apply(&image, &preprocess(), 0), Err(Error::Invalid { .. })), "{bad:?}");
        let builder = Loader::builder(set(&[2]), preprocess()).training(bad, 0);
        assert!(matches!(builder.build(), Err(Error::Invalid { .. })));
    }
    let refused = |change: fn(LoaderBuilder) -> LoaderBuilder| {
        matches!(change(Loader::builder(set(&[2]), preprocess())).build(), Err(Error::Invalid { .. }))
    };
    assert!(refused(|builder| builder.batch_size(0)));
    assert!(refused(|builder| builder.workers(0)));
    assert!(refused(|builder| builder.workers(1025)));
    assert!(refused(|builder| builder.batch_size(3).last_batch(LastBatch::Drop)));
    let huge = Loader::builder(set(&[2]), preprocess()).batch_size(usize::MAX).build();
    assert!(matches!(huge, Err(Error::Shape { .. })));
    let bad = Preprocess::new(Resize::Whole { filter: Filter::Bilinear }, 0);
    assert!(matches!(Loader::builder(set(&[2]), bad).build(), Err(Error::Invalid { .. })));
}

#[test]
fn augmentation_is_a_serde_value() {
    let augmentation = Augmentation::light().ratio(0.9..=1.1);
    let text = serde_json::to_string(&augmentation).unwrap();
    assert_eq!(serde_json::from_str::<Augmentation>(&text).unwrap(), augmentation);
}
