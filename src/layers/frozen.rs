//! The frozen beginning of a chain in training: compiled, for it is inference.
//!
//! An engine runs it two to three times as fast as its layers. It is compiled when it is first met and kept on the
//! tape. It has to be compiled again when the chain got another layer, which its identity tells (a layer keeps its
//! options), or when a parameter was changed, by loading weights say, which a checksum tells.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use ndarray::ArrayView4;

use super::{Layer, Signal, Tape, derive_seed};
use crate::engine::{CompileOptions, Engine};
use crate::{Element, Result, Runtime, Tensor};

/// Compiled beginnings that a tape keeps: for images of a few sizes.
const MOST_KEPT: usize = 4;

/// Layers of a chain with their names.
type Links<T> = [(String, Box<dyn Layer<T>>)];

/// A compiled beginning, and what it was compiled from.
pub(super) struct Frozen {
    /// Of the chain; held, so that no other chain gets its address.
    chain: Arc<()>,
    /// Number of layers.
    layers: usize,
    size: [usize; 3],
    checksum: u64,
    engine: Engine,
}

/// The output of frozen layers, one after the other.
pub(super) fn infer<T: Element>(
    chain: &Arc<()>,
    layers: &Links<T>,
    input: Signal<T>,
    tape: &mut Tape<T>,
) -> Result<Signal<T>> {
    let mut map = input.into_tensor(tape)?;
    let mut parameters = 0;
    for (_, layer) in layers {
        layer.visit("", &mut |_, _| parameters += 1);
    }
    if parameters > 0 && T::as_f32(map.as_slice()).is_some() {
        let shape = layers.iter().try_fold(map.shape(), |shape, (_, layer)| layer.output_shape(shape))?;
        let mut output = tape.tensor(shape)?;
        run(chain, layers, &map, &mut output, tape)?;
        tape.recycle_tensor(map);
        return Ok(Signal::new(output));
    }
    for (_, layer) in layers {
        map = layer.forward_with(&map, tape.runtime())?;
    }
    Ok(Signal::new(map))
}

fn run<T: Element>(
    chain: &Arc<()>,
    layers: &Links<T>,
    input: &Tensor<T>,
    output: &mut Tensor<T>,
    tape: &mut Tape<T>,
) -> Result<()> {
    let (shape, checksum) = (input.shape(), checksum(layers, tape.runtime()));
    let [_, h, w, c] = shape;
    let kept = &mut tape.frozen;
    let key = (layers.len(), [h, w, c], checksum);
    let is_same = |kept: &Frozen| Arc::ptr_eq(&kept.chain, chain) && (kept.layers, kept.size, kept.checksum) == key;
    let mut frozen = if let Some(at) = kept.iter().position(is_same) {
        kept.remove(at)
    } else {
        let options = CompileOptions::new().runtime(tape.runtime().clone());
        let engine = Engine::new([1, h, w, c], &options, |graph, input| {
            layers.iter().try_fold(input, |value, (name, layer)| layer.lower(graph, name, value))
        })?;
        Frozen { chain: chain.clone(), layers: layers.len(), size: [h, w, c], checksum, engine }
    };
    if let (Some(input), Some(output)) = (T::as_f32(input.as_slice()), T::as_f32_mut(output.as_mut_slice())) {
        let images = ArrayView4::from_shape(shape, input).expect("the tensor's own shape");
        frozen.engine.run_batch(images, output)?;
    }
    tape.frozen.truncate(MOST_KEPT - 1);
    tape.frozen.insert(0, frozen);
    Ok(())
}

/// Changes with any bit of any parameter, as far as 64 bits can: of each layer by itself, sixteen sums at once.
fn checksum<T: Element>(layers: &Links<T>, runtime: &Runtime) -> u64 {
    const MULTIPLIER: u32 = 0x9E37_79B1;
    let mut checksums = alloc::vec![0; layers.len()];
    let work = layers.iter().zip(&mut checksums).collect();
    runtime.for_each(work, |(): &mut (), ((_, layer), checksum)| {
        layer.visit("", &mut |_, parameter| {
            let mut sums = [1_u32; 16];
            for values in T::as_f32(parameter.as_slice()).unwrap_or_default().chunks(sums.len()) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = (*sum ^ value.to_bits()).wrapping_mul(MULTIPLIER).rotate_left(15);
                }
            }
            *checksum = sums.iter().fold(*checksum, |checksum, &sum| derive_seed(checksum, u64::from(sum)));
        });
    });
    checksums.into_iter().fold(0, derive_seed)
}
