//! The shape of the house, read from the sources: which way the arrows run, and where `unsafe` and `pyo3` may stand.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room may use the rooms before it.
const ROOMS: &[&str] = &["array", "kernels", "autograd", "ops", "optim", "python"];

/// The files that may hold `unsafe`, and no others.
const UNSAFE: &[&str] = &[
    "array/dtype.rs",
    "array/limit.rs",
    "array/poison.rs",
    "array/pool.rs",
    "array/scratch.rs",
    "array/storage.rs",
    "kernels/fork.rs",
    "kernels/gemm/arrays.rs",
    "kernels/gemm/direct.rs",
    "kernels/gemm/dots.rs",
    "kernels/gemm/mod.rs",
    "kernels/gemm/panels.rs",
    "kernels/gemm/split.rs",
    "kernels/gemm/thin.rs",
    "kernels/parallel.rs",
    "kernels/simd.rs",
    "kernels/stream.rs",
    "kernels/turn.rs",
    "kernels/workers.rs",
    "python/interop.rs",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let name = |path: &PathBuf| path.strip_prefix(&root).expect("under rust/").to_string_lossy().replace('\\', "/");
    let sources: Vec<_> = found.iter().map(|path| (name(path), fs::read_to_string(path).expect("readable"))).collect();
    assert!(sources.len() > 30, "found only {} sources", sources.len());
    sources
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or(line))
}

/// The first statement that leads out of its module to one of the `later` rooms. What the crate's root names `Tensor` is autograd's.
fn arrow_back(text: &str, later: &[&str]) -> Option<String> {
    let code = code(text).collect::<Vec<_>>().join(" ");
    let leads = |statement: &&str| {
        let mut words = statement.split(|c: char| !c.is_alphanumeric() && c != '_').map(|word| if word == "Tensor" { "autograd" } else { word });
        ["crate::", "super::"].iter().any(|out| statement.contains(out)) && words.any(|word| later.contains(&word))
    };
    code.split(';').find(leads).map(|statement| statement.trim().to_string())
}

#[test]
fn arrows_back_are_seen_however_they_are_written() {
    let back = ["use crate::ops::add;", "use crate::{Result, autograd::Node};", "use crate::Tensor;", "use crate::{\n    Result, // why\n    ops,\n};"];
    for text in back.into_iter().chain(["fn f(x: super::super::autograd::Node) {}", "fn f() { crate::ops::add() }"]) {
        assert!(arrow_back(text, &["autograd", "ops"]).is_some(), "{text}");
    }
    for text in ["use crate::kernels::map; // not crate::ops", "use std::ops::Add; use crate::Result;", "use crate::kernels::my_ops;"] {
        assert!(arrow_back(text, &["autograd", "ops"]).is_none(), "{text}");
    }
}

#[test]
fn arrows_run_one_way() {
    for (name, text) in sources() {
        let Some(room) = ROOMS.iter().position(|room| name.starts_with(&format!("{room}/"))) else { continue };
        let back = arrow_back(&text, &ROOMS[room + 1..]);
        assert!(back.is_none(), "{name} looks at a later room: {}", back.unwrap_or_default());
    }
}

#[test]
fn python_stays_in_its_room() {
    for (name, text) in sources() {
        if !name.starts_with("python/") {
            assert!(!code(&text).any(|line| line.contains("pyo3")), "{name} mentions pyo3");
        }
    }
}

#[test]
fn unsafe_stays_in_named_files_and_says_why() {
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let words = line.split("//").next().unwrap_or(line);
            if !words.contains("unsafe {") && !words.contains("unsafe impl") && !words.contains("unsafe fn") {
                continue;
            }
            assert!(UNSAFE.contains(&&*name), "{name}:{} is unsafe outside the files allowed to be", i + 1);
            let near = &lines[i.saturating_sub(6)..=i];
            assert!(near.iter().any(|l| l.contains("SAFETY") || l.contains("# Safety")), "{name}:{} gives no reason for its unsafe", i + 1);
        }
    }
}

#[test]
fn files_stay_small() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 400, "{name} has {lines} lines: it is two rooms");
    }
}
