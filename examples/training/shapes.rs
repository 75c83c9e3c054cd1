//! Coloured shapes in front of anything: images to learn from on a machine that has none.
//!
//! Place, size, rotation, shade, background and noise vary, and a grey disc lies beside: only shape and colour tell the
//! class.

use std::f32::consts::{PI, TAU};

use mobilenet::data::{ImageFolder, Sample};
use mobilenet::image::Image;
use rand_distr::{Distribution, StandardUniform};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;

use crate::common::Result;

/// Whether a point, whose distance from the centre is about 1 at the edge, is inside.
type Inside = fn(f32, f32) -> bool;

const SHAPES: [(&str, Inside); 4] = [
    ("disc", |x, y| x * x + y * y < 0.8),
    ("square", |x, y| x.abs().max(y.abs()) < 0.8),
    ("triangle", |x, y| y < 0.55 && 1.732 * x.abs() - y < 1.1),
    ("cross", |x, y| x.abs().min(y.abs()) < 0.3 && x.abs().max(y.abs()) < 1.0),
];

/// Red, green and blue, 0 to 1.
type Colour = [f32; 3];

const COLOURS: [(&str, Colour); 3] = [("red", [0.8, 0.2, 0.2]), ("green", [0.2, 0.7, 0.2]), ("blue", [0.2, 0.3, 0.8])];

/// So many square images of each of twelve classes, such as `green triangle`; `side` in pixels.
pub(crate) fn shapes(images_per_class: usize, side: u32, seed: u64) -> Result<ImageFolder> {
    let mut random = Random(Pcg64::seed_from_u64(seed));
    let (mut classes, mut samples) = (Vec::new(), Vec::new());
    for (colour, rgb) in COLOURS {
        for (shape, inside) in SHAPES {
            for _ in 0..images_per_class {
                samples.push(Sample::new(random.image(inside, rgb, side)?, classes.len()));
            }
            classes.push(format!("{colour} {shape}"));
        }
    }
    Ok(ImageFolder::from_samples(classes, samples)?)
}

/// A shape somewhere in an image.
struct Object {
    inside: Inside,
    colour: Colour,
    centre: [f32; 2],
    radius: f32,
    angle: f32,
}

impl Object {
    fn covers(&self, x: f32, y: f32) -> bool {
        let [x, y] = [(x - self.centre[0]) / self.radius, (y - self.centre[1]) / self.radius];
        let (sin, cos) = self.angle.sin_cos();
        (self.inside)(cos * x - sin * y, sin * x + cos * y)
    }
}

struct Random(Pcg64);

impl Random {
    fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit: f32 = StandardUniform.sample(&mut self.0);
        low + (high - low) * unit
    }

    /// Lengths are parts of the image's side.
    fn object(&mut self, inside: Inside, colour: Colour, radius: [f32; 2]) -> Object {
        let centre = [self.between(0.3, 0.7), self.between(0.3, 0.7)];
        Object { inside, colour, centre, radius: self.between(radius[0], radius[1]), angle: self.between(-PI, PI) }
    }

    /// Less colourful than any shape.
    fn background(&mut self) -> Colour {
        let grey = self.between(0.1, 0.9);
        [(); 3].map(|()| grey + self.between(-0.1, 0.1))
    }

    fn image(&mut self, inside: Inside, colour: Colour, side: u32) -> Result<Image> {
        let shade = self.between(-0.15, 0.15);
        let colour = colour.map(|value| value + shade + self.between(-0.08, 0.08));
        let object = self.object(inside, colour, [0.2, 0.32]);
        let grey = [self.between(0.1, 0.9); 3];
        let mut decoy = self.object(SHAPES[0].1, grey, [0.08, 0.14]);
        // Around the edge, where it may hide a corner of the shape but never most of it.
        let (sin, cos) = self.between(0.0, TAU).sin_cos();
        decoy.centre = [0.5 + 0.45 * cos, 0.5 + 0.45 * sin];

        let [from, to] = [(); 2].map(|()| self.background());
        let noise = self.between(0.0, 0.12);
        let mut pixels = Vec::with_capacity(3 * side as usize * side as usize);
        for row in 0..side {
            for column in 0..side {
                let [x, y] = [column, row].map(|place| (place as f32 + 0.5) / side as f32);
                for channel in 0..3 {
                    let value = [&decoy, &object].into_iter().find(|object| object.covers(x, y)).map_or_else(
                        || from[channel] + (to[channel] - from[channel]) * 0.5 * (x + y),
                        |object| object.colour[channel],
                    );
                    pixels.push(byte(value + self.between(-noise, noise)));
                }
            }
        }
        Ok(Image::from_rgb(pixels, side, side)?)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn byte(value: f32) -> u8 {
    (255.0 * value).round() as u8
}
