//! The module graph of `docs/architecture.md`, enforced.
//!
//! Every path in `src/` that starts at the crate root, whether written `crate::`, `$crate::`, `self::` or
//! `super::`, inline or inside a nested `use`, is resolved to the top-level module it names; a module that the
//! table does not allow is a failure. Files are read as Rust tokens, so comments, strings and doc links do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What each top-level module may import. Equal to the table of `docs/architecture.md`, which gives the reasons.
const ARROWS: &[(&str, &[&str])] = &[
    ("aligned", &[]),
    ("error", &[]),
    ("element", &[]),
    ("shape", &["error"]),
    ("source", &["error", "shape"]),
    ("kernels", &["shape", "element"]),
    ("runtime", &["error", "kernels"]),
    ("tensor", &["aligned", "error", "shape", "element"]),
    ("ops", &["tensor", "runtime", "kernels", "aligned", "shape", "element", "error"]),
    ("engine", &["tensor", "runtime", "kernels", "aligned", "shape", "element", "error"]),
    ("layers", &["engine", "ops", "tensor", "runtime", "kernels", "source", "shape", "element", "error"]),
    ("models", &["layers", "engine", "ops", "tensor", "runtime", "kernels", "source", "shape", "element", "error"]),
    ("weights", &["layers", "tensor", "source", "shape", "element", "error"]),
    (
        "train",
        &["weights", "layers", "engine", "ops", "tensor", "runtime", "kernels", "source", "shape", "element", "error"],
    ),
    ("preprocess", &["tensor", "source", "shape", "element", "error"]),
    ("data", &["preprocess", "tensor", "source", "shape", "element", "error"]),
    (
        "classifier",
        &[
            "preprocess",
            "layers",
            "engine",
            "ops",
            "tensor",
            "runtime",
            "kernels",
            "source",
            "shape",
            "element",
            "error",
        ],
    ),
    ("check", &["layers", "ops", "tensor", "runtime", "kernels", "shape", "element", "error"]),
    (
        "pretrained",
        &[
            "classifier",
            "preprocess",
            "weights",
            "models",
            "layers",
            "engine",
            "ops",
            "tensor",
            "runtime",
            "kernels",
            "source",
            "shape",
            "element",
            "error",
        ],
    ),
];

/// A file with more lines than this has to say why in its first paragraph.
const LONG_FILE: usize = 500;

/// The crate as the checker sees it: source text by path inside `src/`.
type Sources = BTreeMap<PathBuf, String>;

#[test]
fn imports_point_downward() {
    let violations = violations(&sources(), ARROWS);
    assert!(violations.is_empty(), "{} imports break the module graph:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn documented_table_is_the_enforced_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(path).unwrap();
    let documented: BTreeMap<String, BTreeSet<String>> = page.lines().filter_map(documented_arrow).collect();
    let enforced: BTreeMap<String, BTreeSet<String>> = ARROWS
        .iter()
        .map(|(module, imports)| ((*module).into(), imports.iter().map(|&name| name.into()).collect()))
        .collect();
    assert_eq!(documented, enforced, "docs/architecture.md and tests/suite/architecture.rs disagree");
}

#[test]
fn table_has_no_cycle() {
    // The table lists modules bottom up, so an import of a later row would be an arrow upward.
    for (row, (module, imports)) in ARROWS.iter().enumerate() {
        for import in *imports {
            let below = ARROWS[..row].iter().any(|(name, _)| name == import);
            assert!(below, "{module} imports {import}, which is not above it in the table");
        }
    }
}

#[test]
fn no_unsafe_code() {
    let sources = sources();
    for (path, text) in &sources {
        assert!(!contains_word(tokens(path, text), "unsafe"), "src/{} contains unsafe code", path.display());
    }
    let root = tokens(Path::new("lib.rs"), &sources[Path::new("lib.rs")]).to_string().replace(' ', "");
    assert!(root.contains("#![forbid(unsafe_code)]"), "lib.rs does not forbid unsafe code");
}

#[test]
fn kernels_know_only_slices() {
    // No allocation, threads, tensors or I/O: what a kernel would need from these crates.
    const FOREIGN: [&str; 4] = ["alloc", "ndarray", "rayon", "std"];
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("kernels")) {
        for name in FOREIGN {
            let used = paths_from(tokens(path, text), name);
            assert!(used.is_empty(), "src/{} uses `{name}::{}`", path.display(), used[0].segments.join("::"));
        }
    }
}

#[test]
fn crate_root_only_names_modules_and_exports() {
    let text = &sources()[Path::new("lib.rs")];
    for keyword in ["fn", "struct", "enum", "trait", "impl", "macro_rules", "static"] {
        assert!(!contains_word(tokens(Path::new("lib.rs"), text), keyword), "lib.rs defines a `{keyword}`");
    }
}

#[test]
fn long_files_say_why() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        let first_paragraph: String = text
            .lines()
            .take_while(|line| line.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty()))
            .collect();
        assert!(
            lines <= LONG_FILE || first_paragraph.contains("long"),
            "src/{} has {lines} lines; its first paragraph does not say why it is this long",
            path.display()
        );
    }
}

#[test]
fn upward_import_is_caught_in_every_spelling() {
    for text in [
        "use crate::layers::Layer;",
        "use crate::{shape::Shape, layers::{Layer, Parameter}};",
        "use { crate::{ {layers as l} } };",
        "use crate::Layer;",
        "use super::layers::Layer;",
        "use super::Layer as L;",
        "fn f() { let _ = crate::layers::dotted(\"\", \"\"); }",
        "fn f(x: &impl crate::layers::Layer<f32>) {}",
        "struct S { field: crate::layers::Parameter<f32> }",
        "mod deep { use super::super::layers; }",
        "mod deep { mod deeper { use super::super::super::{shape, layers}; } }",
        "mod deep { use self::super::super::layers; }",
        "macro_rules! m { () => { $crate::layers::dotted() } }",
        "thread_local! { static X: crate::layers::X = crate::layers::X::new(); }",
        "pub(in crate::layers) fn f() {}",
        "use crate::r#layers;",
    ] {
        assert_eq!(violations_of("tensor.rs", text).len(), 1, "{text}");
    }
    // The same from the root of a folder, and from a file inside it.
    assert_eq!(violations_of("kernels/mod.rs", "use super::layers;").len(), 1);
    assert_eq!(violations_of("kernels/planted.rs", "use super::super::layers;").len(), 1);
    assert_eq!(violations_of("kernels/planted.rs", "mod tests { use super::super::super::layers; }").len(), 1);
}

#[test]
fn whole_crate_import_is_caught() {
    for text in
        ["use crate::*;", "use super::*;", "use crate as root;", "use crate::{self as root};", "use super::{*};"]
    {
        assert_eq!(violations_of("tensor.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn unknown_name_at_the_root_is_caught() {
    assert_eq!(violations_of("tensor.rs", "use crate::Nonsense;").len(), 1);
}

#[test]
fn module_without_a_row_is_caught() {
    assert_eq!(violations_of("novelty/mod.rs", "fn f() {}").len(), 1);
}

#[test]
fn downward_and_own_imports_pass() {
    for text in [
        "use crate::{Element, shape::Conv2dGeometry};",
        "use super::super::shape;",
        "use super::Pixels; use self::inner::X; use super::super::kernels::Clamp;",
        "use crate::kernels::reference;",
        "mod tests { use super::*; }",
        "use crate::ndarray::Array4;",
        "pub(crate) fn f() {} pub(super) fn g() {}",
        "/// See [`crate::layers`]. \n/* use crate::layers; */ fn f() -> &'static str { \"crate::layers\" }",
        "//! [`Layer`](crate::layers::Layer)\n// crate::layers::Layer\nconst C: char = '\"'; const R: &str = r#\"crate::layers\"#;",
    ] {
        let found = violations_of("kernels/planted.rs", text);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

/// One use of a path that starts at some name: the rest of its segments, and where it stands.
#[derive(Debug)]
struct PathUse {
    segments: Vec<String>,
    /// Inline modules around it, outermost first.
    inside: Vec<String>,
    line: usize,
}

/// Every import that the table does not allow, as `src/file:line: reason`.
fn violations(sources: &Sources, arrows: &[(&str, &[&str])]) -> Vec<String> {
    let root = root_names(&sources[Path::new("lib.rs")]);
    let mut found = BTreeSet::new();
    for (path, text) in sources.iter().filter(|(path, _)| *path != Path::new("lib.rs")) {
        let module = module_of(path);
        let Some((_, allowed)) = arrows.iter().find(|(name, _)| *name == module[0]) else {
            found.insert(format!("src/{}: module `{}` has no row in the table", path.display(), module[0]));
            continue;
        };
        for start in ["crate", "super", "self"] {
            for used in paths_from(tokens(path, text), start) {
                let Some(name) = name_at_root(&module, start, &used) else { continue };
                let target = root.get(&name).map(String::as_str);
                let reason = match target {
                    _ if name == "*" || name == "self" => "imports the whole crate".into(),
                    None => format!("names `{name}`, which lib.rs neither declares nor exports"),
                    Some(target) if target.is_empty() || target == module[0] || allowed.contains(&target) => continue,
                    Some(target) => format!("`{}` may not import `{target}` (as `{name}`)", module[0]),
                };
                found.insert(format!("src/{}:{}: {reason}", path.display(), used.line));
            }
        }
    }
    found.into_iter().collect()
}

/// The name that a path looks up at the crate root; `None` if it never gets there.
fn name_at_root(module: &[String], start: &str, used: &PathUse) -> Option<String> {
    let mut depth = if start == "crate" { 0 } else { module.len() + used.inside.len() };
    depth -= usize::from(start == "super");
    let mut segments = used.segments.iter().map(String::as_str).peekable();
    while let Some(&segment) = segments.peek() {
        match segment {
            "super" => depth -= 1,
            // The first segment of `crate::{self}` is the crate; of `self::x` it is skipped by the caller.
            "self" if depth > 0 => {}
            _ => break,
        }
        segments.next();
    }
    (depth == 0).then(|| segments.next().unwrap_or("self").to_string())
}

/// Module path of a file: `kernels/pointwise.rs` is `[kernels, pointwise]`.
fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_str().unwrap().to_string()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// What `crate::name` is: the top-level module that declares it; empty for a re-exported crate.
fn root_names(text: &str) -> BTreeMap<String, String> {
    let trees: Vec<TokenTree> = tokens(Path::new("lib.rs"), text).into_iter().collect();
    let mut modules = BTreeSet::new();
    for pair in trees.windows(2) {
        if word(&pair[0]).as_deref() == Some("mod") {
            modules.extend(word(&pair[1]));
        }
    }
    let mut names: BTreeMap<String, String> = modules.iter().map(|name| (name.clone(), name.clone())).collect();
    for (index, tree) in trees.iter().enumerate() {
        if word(tree).as_deref() != Some("use") {
            continue;
        }
        for leaf in use_leaves(&trees[index + 1..]) {
            let path: Vec<&str> =
                leaf.path.iter().map(String::as_str).skip_while(|part| ["crate", "self"].contains(part)).collect();
            let (Some(first), Some(last)) = (path.first(), path.last()) else { continue };
            let origin = if modules.contains(*first) { (*first).to_string() } else { String::new() };
            names.insert(leaf.alias.unwrap_or_else(|| (*last).to_string()), origin);
        }
    }
    names
}

/// One imported name of a `use` declaration.
struct UseLeaf {
    path: Vec<String>,
    alias: Option<String>,
    line: usize,
}

/// The names of the use tree that `trees` starts with.
fn use_leaves(trees: &[TokenTree]) -> Vec<UseLeaf> {
    let mut leaves = Vec::new();
    let mut path = Vec::new();
    let mut alias = None;
    let line = trees.first().map_or(0, |tree| tree.span().start().line);
    let mut rest = trees.iter();
    while let Some(tree) = rest.next() {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inner.split(|tree| is_punct(tree, ',')).filter(|branch| !branch.is_empty()) {
                    for leaf in use_leaves(branch) {
                        leaves.push(UseLeaf { path: [path.clone(), leaf.path].concat(), ..leaf });
                    }
                }
                return leaves;
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".into()),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            TokenTree::Ident(_) if word(tree).as_deref() == Some("as") => alias = rest.next().and_then(word),
            TokenTree::Ident(_) => path.extend(word(tree)),
            _ => break,
        }
    }
    leaves.push(UseLeaf { path, alias, line });
    leaves
}

/// Every path that starts with `start::`, in `use` trees and elsewhere, inside macros too.
fn paths_from(stream: TokenStream, start: &str) -> Vec<PathUse> {
    let mut found = Vec::new();
    collect_paths(stream, start, &mut Vec::new(), &mut found);
    found
}

fn collect_paths(stream: TokenStream, start: &str, inside: &mut Vec<String>, found: &mut Vec<PathUse>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut index = 0;
    while index < trees.len() {
        let current = word(&trees[index]);
        if current.as_deref() == Some("use") {
            let length = trees[index..].iter().position(|tree| is_punct(tree, ';')).unwrap_or(trees.len() - index);
            for leaf in use_leaves(&trees[index + 1..index + length]) {
                if let Some((first, segments)) = leaf.path.split_first()
                    && first == start
                {
                    found.push(PathUse { segments: segments.to_vec(), inside: inside.clone(), line: leaf.line });
                }
            }
            index += length;
            continue;
        }
        let continues = index > 1 && is_punct(&trees[index - 1], ':') && is_punct(&trees[index - 2], ':');
        if current.as_deref() == Some(start)
            && !continues
            && trees.get(index + 1).is_some_and(|tree| is_punct(tree, ':'))
        {
            let mut segments = Vec::new();
            let mut next = index + 1;
            while next + 2 < trees.len() && is_punct(&trees[next], ':') && is_punct(&trees[next + 1], ':') {
                let Some(segment) = word(&trees[next + 2]) else { break };
                segments.push(segment);
                next += 3;
            }
            // `self: &Self` and `x: super` have one colon, hence no segments.
            if !segments.is_empty() {
                found.push(PathUse { segments, inside: inside.clone(), line: trees[index].span().start().line });
            }
        }
        if let TokenTree::Group(group) = &trees[index] {
            let named = index >= 2 && word(&trees[index - 2]).as_deref() == Some("mod");
            let module = if named && group.delimiter() == Delimiter::Brace { word(&trees[index - 1]) } else { None };
            let entered = module.is_some();
            inside.extend(module);
            collect_paths(group.stream(), start, inside, found);
            if entered {
                inside.pop();
            }
        }
        index += 1;
    }
}

fn contains_word(stream: TokenStream, searched: &str) -> bool {
    stream.into_iter().any(|tree| match &tree {
        TokenTree::Group(group) => contains_word(group.stream(), searched),
        _ => word(&tree).as_deref() == Some(searched),
    })
}

/// An identifier or keyword, without the `r#` of a raw one.
fn word(tree: &TokenTree) -> Option<String> {
    match tree {
        TokenTree::Ident(ident) => Some(ident.to_string().trim_start_matches("r#").to_string()),
        _ => None,
    }
}

fn is_punct(tree: &TokenTree, character: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn tokens(path: &Path, text: &str) -> TokenStream {
    TokenStream::from_str(text).unwrap_or_else(|error| panic!("src/{}: {error}", path.display()))
}

/// `module | imports` of a row of the table in `docs/architecture.md`.
fn documented_arrow(line: &str) -> Option<(String, BTreeSet<String>)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let module = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    let imports = cells.next()?.split([',', ' ']).filter(|name| !name.is_empty() && *name != "nothing");
    Some((module.into(), imports.map(|name| name.trim_matches('`').into()).collect()))
}

/// All Rust files below `src/`.
fn sources() -> Sources {
    fn read(folder: &Path, root: &Path, sources: &mut Sources) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, root, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.insert(path.strip_prefix(root).unwrap().into(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Sources::new();
    read(&root, &root, &mut sources);
    sources
}

/// Violations of one planted file beside a small `lib.rs`.
fn violations_of(path: &str, text: &str) -> Vec<String> {
    const ROOT: &str = "//! Docs.
        extern crate alloc;
        mod element; mod error; pub mod kernels; pub mod layers; pub mod shape; mod tensor; pub mod novelty;
        pub use element::Element; pub use error::{Error, Result}; pub use layers::Layer; pub use ndarray;
        pub use shape::Shape; pub use tensor::Tensor;";
    let sources = [("lib.rs", ROOT), (path, text)].map(|(path, text)| (path.into(), text.into())).into();
    violations(&sources, ARROWS)
}
