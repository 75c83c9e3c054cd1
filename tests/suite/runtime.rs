//! SIMD levels and threads: every level agrees, the thread count changes no bit, impossible requests are errors.

use mobilenet::check::{Tolerance, assert_close};
use mobilenet::{Error, Layer, MobileNetV1, MobileNetV2, Runtime, SimdLevel, Tensor};

use crate::common::values;

/// Networks whose channels fill no vector evenly, one of each family.
fn networks() -> [(&'static str, Box<dyn Layer<f32>>); 2] {
    let v1 = MobileNetV1::builder().alpha(0.3).classes(7).seed(3).build().unwrap();
    let v2 = MobileNetV2::builder().alpha(0.45).classes(11).seed(4).build().unwrap();
    [("v1", Box::new(v1)), ("v2", Box::new(v2))]
}

fn images(count: usize) -> Tensor<f32> {
    let shape = [count, 45, 52, 3];
    Tensor::from_shape_vec(shape, values("images", shape.iter().product())).unwrap()
}

#[test]
fn every_level_agrees_with_the_scalar_one() {
    for (name, net) in networks() {
        let expected = net.forward_with(&images(1), &Runtime::new().level(SimdLevel::Scalar).unwrap()).unwrap();
        let size = expected.as_slice().iter().fold(0.0_f32, |size, value| size.max(value.abs()));
        for level in SimdLevel::available() {
            let found = net.forward_with(&images(1), &Runtime::new().level(level).unwrap()).unwrap();
            assert_close(found.as_slice(), expected.as_slice(), Tolerance::absolute(1e-4 * f64::from(size)));
            println!("{name} {level} agrees");
        }
    }
}

#[test]
fn thread_count_changes_no_bit() {
    for (name, net) in networks() {
        // Fewer images than threads, and more: rows are split, then images.
        for count in [1, 2, 5] {
            let images = images(count);
            for level in SimdLevel::available() {
                let runtime = Runtime::new().level(level).unwrap();
                let alone = net.forward_with(&images, &runtime).unwrap();
                for threads in [2, 3] {
                    let together = net.forward_with(&images, &runtime.clone().threads(threads).unwrap()).unwrap();
                    assert_eq!(alone, together, "{name} {level} {count} images {threads} threads");
                }
            }
        }
    }
}

#[test]
fn image_of_a_batch_equals_the_image_alone() {
    for (name, net) in networks() {
        let images = images(3);
        let batch = net.forward(&images).unwrap();
        for index in 0..3 {
            assert_close(
                net.forward(&images.image(index).unwrap()).unwrap().as_slice(),
                batch.image(index).unwrap().as_slice(),
                Tolerance::absolute(1e-5),
            );
        }
        println!("{name} agrees");
    }
}

#[test]
fn impossible_requests_are_errors() {
    assert!(matches!(Runtime::new().threads(0), Err(Error::Invalid { .. })));
    let foreign = if cfg!(target_arch = "aarch64") { SimdLevel::Avx2 } else { SimdLevel::Neon };
    assert!(matches!(Runtime::new().level(foreign), Err(Error::Invalid { .. })));
    assert!("avx1024".parse::<SimdLevel>().is_err());
    assert_eq!("avx512".parse(), Ok(SimdLevel::Avx512));
}
