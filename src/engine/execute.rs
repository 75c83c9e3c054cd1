//! Runs a plan: hands every step its buffers.

use core::ops::Range;

use super::Engine;
use super::memory::Memory;
use super::plan::Plan;
use super::step::{Context, Place, Slot, Source};
use crate::{Result, Runtime};

impl Plan {
    /// One image. Calls `after(step)` when a step is done.
    pub(super) fn run(
        &self,
        runtime: &Runtime,
        parallel: bool,
        arena: &mut [f32],
        input: &[f32],
        output: &mut [f32],
        mut after: impl FnMut(usize),
    ) -> Result<()> {
        let context = Context { level: self.level, weights: self.weights.as_slice(), far: self.far, parallel };
        for (index, step) in self.steps.iter().enumerate() {
            let residual = step.residual.filter(|residual| residual.place != step.input.place);
            let ranges = [
                self.range(Some(step.output)),
                step.scratch_buffer.map_or(0..0, |buffer| self.buffer(buffer)),
                self.range(Some(step.input)),
                self.range(residual),
            ];
            let parts = arena.get_disjoint_mut(ranges).expect("buffers used at once are apart");
            let [to, scratch, from, added] = parts;
            let (from, added) = (&*from, &*added);
            let source = |slot: Slot, data| Source {
                data: if slot.place == Place::Input { input } else { data },
                format: slot.format,
            };
            let residual =
                step.residual.map(|slot| source(slot, if slot.place == step.input.place { from } else { added }));
            let to = if step.output.place == Place::Output { &mut *output } else { to };
            step.run(context, runtime, source(step.input, from), residual, to, scratch)?;
            after(index);
        }
        Ok(())
    }

    fn range(&self, slot: Option<Slot>) -> Range<usize> {
        match slot.map(|slot| slot.place) {
            Some(Place::Buffer(buffer)) => self.buffer(buffer),
            _ => 0..0,
        }
    }

    fn buffer(&self, buffer: usize) -> Range<usize> {
        let [start, len] = self.buffers[buffer];
        start..start + len
    }
}

impl Engine {
    /// Any number of images, one after the other.
    pub(super) fn execute(&mut self, images: &[f32], outputs: &mut [f32]) -> Result<()> {
        let Self { plan, runtime, arenas, .. } = self;
        runtime.install_awake(|| batch(plan, runtime, arenas, images, outputs))
    }
}

/// As many images at once as there are arenas, the rest one by one on all threads.
fn batch(plan: &Plan, runtime: &Runtime, arenas: &mut [Memory], images: &[f32], outputs: &mut [f32]) -> Result<()> {
    let [image, output] = [plan.input, plan.output].map(|size| size.iter().product::<usize>().max(1));
    let count = images.len() / image;
    let at_once = if arenas.len() > 1 { count / arenas.len() * arenas.len() } else { 0 };
    let (many, rest) = images.split_at(at_once * image);
    let (many_outputs, rest_outputs) = outputs.split_at_mut(at_once * output);
    if at_once > 0 {
        apart(plan, runtime, arenas, many, many_outputs)?;
    }
    let arena = arenas[0].as_mut_slice();
    let parallel = plan.threads > 1;
    for (image, output) in rest.chunks_exact(image).zip(rest_outputs.chunks_exact_mut(output)) {
        plan.run(runtime, parallel, arena, image, output, |_| ())?;
    }
    Ok(())
}

/// An equal share of the images for every arena, each on one thread.
fn apart(plan: &Plan, runtime: &Runtime, arenas: &mut [Memory], images: &[f32], outputs: &mut [f32]) -> Result<()> {
    if let [arena] = arenas {
        let [image, output] = [plan.input, plan.output].map(|size| size.iter().product::<usize>().max(1));
        for (image, output) in images.chunks_exact(image).zip(outputs.chunks_exact_mut(output)) {
            plan.run(runtime, false, arena.as_mut_slice(), image, output, |_| ())?;
        }
        return Ok(());
    }
    let (of, middle) = (arenas.len(), arenas.len() / 2);
    let (left, right) = arenas.split_at_mut(middle);
    let (left_images, right_images) = images.split_at(images.len() / of * middle);
    let (left_outputs, right_outputs) = outputs.split_at_mut(outputs.len() / of * middle);
    let (first, second) = Runtime::join(
        || apart(plan, runtime, left, left_images, left_outputs),
        || apart(plan, runtime, right, right_images, right_outputs),
    );
    first.and(second)
}
