//! Saving and opening again.

use std::fs;
use std::path::Path;

use mobilenet::layers::StateDict;
use mobilenet::ndarray::{ArrayD, IxDyn, arr1};
use mobilenet::weights::Precision;
use mobilenet::{Element, Error, WeightSource};

/// Awkward values: subnormal, infinite, negative zero, the largest and one that needs every bit.
fn state<T: Element>(source: Option<WeightSource>) -> StateDict<T> {
    let values = [1.0 / 3.0, -0.0, 1e-40, f64::INFINITY, -65504.0, f64::from(f32::MIN_POSITIVE)];
    let array = ArrayD::from_shape_vec(IxDyn(&[1, 2, 3]), values.map(T::from_f64).to_vec()).unwrap();
    let mut state = StateDict::new(source);
    state.insert("features.0.weight", array);
    state.insert("classifier.bias", arr1(&[T::from_f64(-1.5)]).into_dyn());
    state.insert("empty", ArrayD::zeros(IxDyn(&[0, 4])));
    state
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_round_trip<T: Element>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for source in WeightSource::ALL.map(Some).into_iter().chain([None]) {
        let saved = state::<T>(source);
        // The second time over a file that is there.
        saved.save(&path).unwrap();
        saved.save(&path).unwrap();
        let opened = StateDict::open(&path, None).unwrap();
        assert_eq!(opened, saved);
        assert_eq!(opened.source(), source);
        if let Some(source) = source {
            assert_eq!(StateDict::open(&path, source).unwrap(), saved);
        }
    }
    assert_eq!(files_in(folder.path()), ["weights.safetensors"]);
}

#[test]
fn saved_states_open_equal() {
    assert_round_trip::<f32>();
    assert_round_trip::<f64>();
}

#[test]
fn f64_files_open_as_f32_and_back() {
    let bytes = state::<f32>(None).to_bytes(Precision::Full).unwrap();
    assert_eq!(StateDict::<f64>::from_bytes(&bytes, None).unwrap().get("classifier.bias").unwrap()[0], -1.5);
    let bytes = state::<f64>(None).to_bytes(Precision::Full).unwrap();
    assert_eq!(
        StateDict::<f32>::from_bytes(&bytes, None).unwrap().get("features.0.weight").unwrap()[[0, 0, 0]],
        1.0 / 3.0
    );
}

#[test]
fn equal_states_have_equal_bytes() {
    let bytes = || state::<f32>(Some(WeightSource::Timm)).to_bytes(Precision::Half).unwrap();
    assert_eq!(bytes(), bytes());
}

#[test]
fn half_precision_rounds_once() {
    let saved = state::<f32>(None);
    let bytes = saved.to_bytes(Precision::Half).unwrap();
    let once = StateDict::<f32>::from_bytes(&bytes, None).unwrap();
    let value = once.get("features.0.weight").unwrap()[[0, 0, 0]];
    assert!((value - 1.0 / 3.0).abs() <= 2.0_f32.powi(-13) && value != 1.0 / 3.0);
    assert_eq!(once.to_bytes(Precision::Half).unwrap(), bytes);
}

#[test]
fn source_is_never_guessed_nor_overruled() {
    let ours = state::<f32>(Some(WeightSource::Keras)).to_bytes(Precision::Full).unwrap();
    let none = state::<f32>(None).to_bytes(Precision::Full).unwrap();
    let foreign = super::files::good_safetensors();
    for (bytes, source) in [
        (&ours, Some(WeightSource::Timm)),
        (&none, Some(WeightSource::Timm)),
        (&foreign, None),
        (&super::files::good_archive(), None),
    ] {
        assert!(matches!(StateDict::<f32>::from_bytes(bytes, source), Err(Error::Invalid { .. })));
    }
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let mut large = StateDict::new(None);
    large.insert("x".repeat(1 << 20), arr1(&[0.0_f32]).into_dyn());
    assert!(matches!(large.to_bytes(Precision::Full), Err(Error::Format { .. })));
}

#[test]
fn failed_saves_leave_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    state::<f32>(None).save(&path).unwrap();
    let before = fs::read(&path).unwrap();

    // A value that half precision does not have.
    let mut large = StateDict::new(None);
    large.insert("x", arr1(&[70000.0_f32]).into_dyn());
    assert!(matches!(large.save_as(&path, Precision::Half), Err(Error::Invalid { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    // A name that cannot be replaced by a file: the rename fails after all bytes are written.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("inside"), "x").unwrap();
    assert!(matches!(large.save(&taken), Err(Error::Io { .. })));
    assert!(matches!(large.save(folder.path().join("..")), Err(Error::Io { .. })));
    assert!(matches!(large.save(folder.path().join("absent/file")), Err(Error::Io { .. })));
    assert_eq!(files_in(folder.path()), ["taken", "weights.safetensors"]);
    assert_eq!(files_in(&taken), ["inside"]);
}

/// Does nothing for a user who may write anywhere; CI runs as one who may not.
#[cfg(unix)]
#[test]
fn read_only_folders_keep_their_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    state::<f32>(None).save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(folder.path().join("probe"), "").is_err() {
        assert!(matches!(StateDict::<f32>::new(None).save(&path), Err(Error::Io { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn files_that_cannot_be_read_are_an_io_error() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent"), folder.path().to_owned()] {
        assert!(matches!(StateDict::<f32>::open(path, None), Err(Error::Io { .. })));
    }
}

#[test]
fn files_beyond_the_limit_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long");
    // Sparse: no disk behind it.
    fs::File::create(&path).unwrap().set_len((1 << 30) + 1).unwrap();
    assert!(matches!(StateDict::<f32>::open(path, None), Err(Error::Format { .. })));
}
