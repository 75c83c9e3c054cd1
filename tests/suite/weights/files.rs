//! Small weight files, built byte by byte so that each field can be a lie.

#![allow(dead_code, reason = "each test program uses its part of the builders")]

/// A pickle under construction; every method appends one opcode or a fixed group.
#[derive(Clone, Default)]
pub(crate) struct PickleBuilder(Vec<u8>);

impl PickleBuilder {
    pub(crate) fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        let len = u32::try_from(text.len()).unwrap().to_le_bytes();
        self.raw("X").raw(len).raw(text)
    }

    pub(crate) fn int(self, value: i64) -> Self {
        self.raw([0x8a, 8]).raw(value.to_le_bytes())
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n"))
    }

    pub(crate) fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.raw("("), |pickle, &value| pickle.int(value)).raw("t")
    }

    /// Pushes the tensor of a [`TensorSpec`].
    pub(crate) fn tensor(self, spec: &TensorSpec<'_>) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw("((")
            .text("storage")
            .global("torch", spec.storage_type)
            .text(spec.key)
            .text("cpu")
            .int(spec.elements)
            .raw(if spec.is_legacy { "NtQ" } else { "tQ" })
            .int(spec.offset)
            .ints(spec.sizes)
            .ints(spec.strides)
            .raw([0x89])
            .global("collections", "OrderedDict")
            .raw(")RtR")
    }

    pub(crate) fn stop(self) -> Vec<u8> {
        self.raw(".").0
    }
}

/// A tensor as a pickle describes it.
#[derive(Clone, Copy)]
pub(crate) struct TensorSpec<'a> {
    pub(crate) name: &'a str,
    pub(crate) storage_type: &'a str,
    pub(crate) key: &'a str,
    pub(crate) elements: i64,
    pub(crate) offset: i64,
    pub(crate) sizes: &'a [i64],
    pub(crate) strides: &'a [i64],
    pub(crate) is_legacy: bool,
}

/// A good tensor of six f32 in storage `0`: what the attacks change one field of.
pub(crate) const GOOD: TensorSpec<'static> = TensorSpec {
    name: "features.0.0.weight",
    storage_type: "FloatStorage",
    key: "0",
    elements: 6,
    offset: 0,
    sizes: &[2, 3],
    strides: &[3, 1],
    is_legacy: false,
};

/// The values of [`GOOD`], 1 to 6.
pub(crate) fn good_bytes() -> Vec<u8> {
    (1_u8..=6).flat_map(|value| f32::from(value).to_le_bytes()).collect()
}

/// The pickle of a state dict with these tensors.
pub(crate) fn state_pickle(specs: &[TensorSpec<'_>]) -> Vec<u8> {
    let pickle = PickleBuilder::new().global("collections", "OrderedDict").raw(")R(");
    specs.iter().fold(pickle, |pickle, spec| pickle.text(spec.name).tensor(spec)).raw("u").stop()
}

pub(crate) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The older container: `head` is everything before the state dict.
pub(crate) fn legacy_with_head(head: &[u8], state: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let mut keys = PickleBuilder::new().raw("](");
    for (key, ..) in storages {
        keys = keys.text(key);
    }
    let mut bytes = [head, state, &keys.raw("e").stop()].concat();
    for (_, elements, content) in storages {
        bytes.extend(elements.to_le_bytes());
        bytes.extend(*content);
    }
    bytes
}

pub(crate) fn legacy_protocol(protocol: i64) -> Vec<u8> {
    PickleBuilder::new().int(protocol).stop()
}

pub(crate) fn legacy_machine(little_endian: bool) -> Vec<u8> {
    PickleBuilder::new().raw("}").text("little_endian").raw([if little_endian { 0x88 } else { 0x89 }, b's']).stop()
}

pub(crate) fn legacy_head() -> Vec<u8> {
    [LEGACY_MAGIC, &legacy_protocol(1001), &legacy_machine(true)].concat()
}

pub(crate) fn legacy(state: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    legacy_with_head(&legacy_head(), state, storages)
}

/// The whole older container with [`GOOD`].
pub(crate) fn good_legacy() -> Vec<u8> {
    legacy(&state_pickle(&[TensorSpec { is_legacy: true, ..GOOD }]), &[("0", 6, &good_bytes())])
}

/// An entry of a zip archive, with the fields an attack may set.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    /// Size the directory claims, if not the true one.
    pub(crate) claimed: Option<u32>,
}

pub(crate) fn entry(name: &str, content: &[u8]) -> Entry {
    Entry { name: name.into(), content: content.into(), method: 0, flags: 0, claimed: None }
}

pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = u32::try_from(bytes.len()).unwrap();
        let size = entry.claimed.unwrap_or_else(|| u32::try_from(entry.content.len()).unwrap());
        let mut common = Vec::new();
        common.extend(20_u16.to_le_bytes());
        common.extend(entry.flags.to_le_bytes());
        common.extend(entry.method.to_le_bytes());
        common.extend([0; 8]); // time, date, checksum
        common.extend([size.to_le_bytes(), size.to_le_bytes()].concat());
        common.extend(u16::try_from(entry.name.len()).unwrap().to_le_bytes());
        common.extend([0; 2]); // extra field
        bytes.extend([b"PK\x03\x04", &common[..], entry.name.as_bytes(), &entry.content].concat());
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10]].concat());
        directory.extend([&offset.to_le_bytes(), entry.name.as_bytes()].concat());
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let start = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let len = u32::try_from(directory.len()).unwrap().to_le_bytes();
    bytes.extend(directory);
    bytes.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &len, &start, &[0; 2]].concat());
    bytes
}

/// A zip container with this state dict and storages.
pub(crate) fn archive(state: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut entries = vec![entry("net/data.pkl", state), entry("net/byteorder", b"little")];
    entries.extend(storages.iter().map(|(key, content)| entry(&format!("net/data/{key}"), content)));
    zip(&entries)
}

/// The whole zip container with [`GOOD`].
pub(crate) fn good_archive() -> Vec<u8> {
    archive(&state_pickle(&[GOOD]), &[("0", &good_bytes())])
}

/// A safetensors file with this header.
pub(crate) fn safetensors(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A whole safetensors file with the same array as [`GOOD`].
pub(crate) fn good_safetensors() -> Vec<u8> {
    let header = r#"{"features.0.0.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    safetensors(header, &good_bytes())
}

/// One file of each format.
pub(crate) fn all_good() -> [(&'static str, Vec<u8>); 3] {
    [("legacy", good_legacy()), ("zip", good_archive()), ("safetensors", good_safetensors())]
}
