//! The inference engine: what a network compiles to.
//!
//! Layers lower themselves into a [`Graph`] of operators; compiling it folds batch normalisation, packs the weights for
//! one SIMD level, fuses what is worth fusing and gives every intermediate map its place in one block of memory. A run
//! on one thread then computes and nothing else: it allocates nothing, takes no lock and makes no system call. With
//! more threads it enters their pool, whose queue takes a lock and, one time in many, memory.

mod execute;
mod format;
mod fused;
mod graph;
mod memory;
mod pack;
mod plan;
#[cfg(feature = "std")]
mod profile;
mod report;
mod step;

pub use graph::{Filter, FilterWeights, Graph, Value};
#[cfg(feature = "std")]
pub use profile::{Profile, ProfileRow};
pub use report::{PlanRow, PlanTable};

use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ndarray::ArrayView4;

use crate::kernels::SimdLevel;
use crate::shape::element_count;
use crate::{Error, Result, Runtime, Shape};
use memory::Memory;
use plan::Plan;

/// How a network is compiled.
///
/// ```
/// use mobilenet::engine::CompileOptions;
/// use mobilenet::{Layer, MobileNetV2, SimdLevel};
/// let net = MobileNetV2::<f32>::builder().alpha(0.35).classes(10).build()?;
/// let options = CompileOptions::new().level(SimdLevel::Scalar).threads(1);
/// let engine = net.compile([1, 64, 64, 3], &options)?;
/// assert_eq!(engine.output_len(), 10);
/// assert!(net.compile([1, 64, 64, 3], &CompileOptions::new().threads(0)).is_err());
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    level: Option<SimdLevel>,
    threads: Option<usize>,
    runtime: Option<Runtime>,
}

impl CompileOptions {
    /// The machine's best level, on one thread.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another SIMD level.
    #[must_use]
    pub fn level(self, level: SimdLevel) -> Self {
        Self { level: Some(level), ..self }
    }

    /// So many threads, in a pool that the engine and its clones share and that ends with them (feature `rayon`). Two
    /// of them are busy for as long as a run takes.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// Level and threads of a runtime; several engines given the same one share its pool.
    #[must_use]
    pub fn runtime(self, runtime: Runtime) -> Self {
        Self { runtime: Some(runtime), ..self }
    }

    fn resolve(&self) -> Result<Runtime> {
        let mut runtime = self.runtime.clone().unwrap_or_default();
        if let Some(level) = self.level {
            runtime = runtime.level(level)?;
        }
        match self.threads {
            Some(threads) => runtime.threads(threads),
            None => Ok(runtime),
        }
    }
}

/// A compiled network, made by [`Layer::compile`](crate::Layer::compile).
///
/// Clones share the packed weights and the threads, and have memory of their own for intermediate maps: give each
/// thread of a server its own.
///
/// ```
/// use mobilenet::engine::CompileOptions;
/// use mobilenet::{Layer, MobileNetV2, Tensor};
/// let net = MobileNetV2::<f32>::builder().alpha(0.35).build()?;
/// let mut engine = net.compile([1, 96, 96, 3], &CompileOptions::new())?;
/// let image = Tensor::zeros([1, 96, 96, 3])?;
/// let mut scores = vec![0.0; engine.output_len()];
/// engine.run(image.view(), &mut scores)?;
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    runtime: Runtime,
    images: usize,
    /// One for each thread that takes an image of its own; the first is every run's.
    arenas: Vec<Memory>,
}

impl Engine {
    /// Compiles the operators that `lower` makes, which returns the output's value.
    pub(crate) fn new<'a>(
        [images, h, w, c]: Shape,
        options: &CompileOptions,
        lower: impl FnOnce(&mut Graph<'a>, Value) -> Result<Value>,
    ) -> Result<Self> {
        let runtime = options.resolve()?;
        if images == 0 || h == 0 || w == 0 || c == 0 {
            return Err(Error::shape(
                "compile",
                "input",
                &[images, h, w, c],
                "at least one image, row, column and channel",
            ));
        }
        element_count("compile", &[images, h, w, c])?;
        let (mut graph, input) = Graph::new([h, w, c]);
        let output = lower(&mut graph, input)?;
        // A layer of the user's may have said anything of its output.
        for &[h, w, c] in &graph.sizes {
            if h == 0 || w == 0 || c == 0 {
                return Err(Error::shape("compile", "map", &[h, w, c], "at least one row, column and channel"));
            }
            element_count("compile", &[images, h, w, c])?;
        }
        let threads = runtime.thread_count();
        let plan = Plan::new(&graph, output, runtime.simd_level(), threads)?;
        let arenas = (0..threads).map(|_| Memory::new(plan.arena_len)).collect();
        Ok(Self { plan: Arc::new(plan), runtime, images, arenas })
    }

    /// The shape of [`Engine::run`]'s input, `[N, H, W, C]`.
    #[must_use]
    pub fn input_shape(&self) -> Shape {
        let [h, w, c] = self.plan.input;
        [self.images, h, w, c]
    }

    /// The shape of [`Engine::run`]'s output.
    #[must_use]
    pub fn output_shape(&self) -> Shape {
        let [h, w, c] = self.plan.output;
        [self.images, h, w, c]
    }

    /// Elements of [`Engine::run`]'s output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.output_shape().iter().product()
    }

    /// Level and threads it runs with.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Computes the output for an input of the compiled shape. A view that is not contiguous is copied first.
    ///
    /// # Errors
    ///
    /// If input or output has another shape, or a layer of the user's fails.
    pub fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut [f32]) -> Result<()> {
        let found: Shape = input.dim().into();
        if found != self.input_shape() {
            return Err(Error::shape("run", "input", &found, format_args!("{:?}", self.input_shape())));
        }
        self.run_batch(input, output)
    }

    /// Computes the outputs of any number of images, on all threads at once; each output follows the one before.
    ///
    /// # Errors
    ///
    /// As [`Engine::run`], but for the number of images.
    pub fn run_batch(&mut self, images: ArrayView4<'_, f32>, outputs: &mut [f32]) -> Result<()> {
        let (count, h, w, c) = images.dim();
        if [h, w, c] != self.plan.input {
            let [h, w, c] = self.plan.input;
            let found: Shape = images.dim().into();
            return Err(Error::shape("run", "input", &found, format_args!("[N, {h}, {w}, {c}]")));
        }
        let expected = count * self.plan.output.iter().product::<usize>();
        if outputs.len() != expected {
            return Err(Error::shape("run", "output", &[outputs.len()], format_args!("{expected} elements")));
        }
        self.execute(&contiguous(images), outputs)
    }

    /// As [`Engine::run`], of a slice in `[N, H, W, C]` order.
    ///
    /// # Errors
    ///
    /// As [`Engine::run`].
    pub fn run_slice(&mut self, input: &[f32], output: &mut [f32]) -> Result<()> {
        let shape = self.input_shape();
        let wrong = || Error::shape("run", "input", &[input.len()], format_args!("the elements of {shape:?}"));
        if input.len() != shape.iter().product::<usize>() {
            return Err(wrong());
        }
        self.run(ArrayView4::from_shape(shape, input).map_err(|_| wrong())?, output)
    }

    /// Bytes of packed weights, which clones share, and of intermediate maps, which each clone has for each of its
    /// threads; those beyond the first are touched only by batches.
    #[must_use]
    pub fn memory(&self) -> [usize; 2] {
        let maps = self.arenas.iter().map(Memory::len).sum();
        [self.plan.weights.len(), maps].map(|floats: usize| floats * size_of::<f32>())
    }

    /// Operators, how they are fused, their kernels and buffers.
    #[must_use]
    pub fn plan(&self) -> PlanTable {
        PlanTable::of(&self.plan)
    }
}

/// The elements in order; copied unless they already are.
fn contiguous(view: ArrayView4<'_, f32>) -> Cow<'_, [f32]> {
    match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => view.iter().copied().collect(),
    }
}
