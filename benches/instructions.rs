//! Instructions of small steps, counted by valgrind and held against `benches/instructions.toml`.
//!
//! `cargo bench --bench instructions` fails where a step takes more than the file says and its tolerance allows;
//! `-- --update` writes the file anew, `-- --profile NAME` lists the functions of one. Unlike times, counts do not depend on
//! what else the machine does. Kernels run on AVX2: valgrind knows no AVX-512.

mod mlp;
mod support;

use mlp::{Mlp, labels};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use support::random;
use treadle::kernels::{parallel, simd};

/// Runs before the first that counts, which fill the memory pool.
const WARM_UP: usize = 20;
const COUNTED: usize = 50;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");
const TOLERANCE: f64 = 0.03;

/// (name, hidden, batch, inputs, work)
const WORKS: [(&str, usize, usize, usize, Work); 6] = [
    ("step (32, 16, 16) SGD", 32, 16, 16, Work::Step { adam: false }),
    ("step (32, 16, 16) Adam", 32, 16, 16, Work::Step { adam: true }),
    ("step (64, 32, 64) SGD", 64, 32, 64, Work::Step { adam: false }),
    ("step (64, 32, 64) Adam", 64, 32, 64, Work::Step { adam: true }),
    ("inference (64, 1, 64)", 64, 1, 64, Work::Inference),
    ("inference (256, 1, 784)", 256, 1, 784, Work::Inference),
];

#[derive(Clone, Copy)]
enum Work {
    Step { adam: bool },
    Inference,
}

/// What runs under valgrind: the work, `count` times.
fn run(name: &str, count: usize) -> Result<(), String> {
    let found = WORKS.iter().find(|work| work.0 == name).ok_or_else(|| format!("instructions: expected a name of the list, got {name}"))?;
    if simd::limit_level(simd::Level::Avx2) != simd::Level::Avx2 {
        return Err(format!("instructions: expected a processor with AVX2, got {}", simd::level().name()));
    }
    parallel::set_num_threads(1);
    let &(_, h, n, d, work) = found;
    let (x, target) = (random(&[n, d], 99), labels(n));
    let mut mlp = Mlp::new(d, h, matches!(work, Work::Step { adam: true }));
    for _ in 0..count {
        match work {
            Work::Step { .. } => mlp.step(&x, &target),
            Work::Inference => mlp.infer(&x).map(drop),
        }
        .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// valgrind on this program; its report is on stderr, its list of functions in `profile`.
fn callgrind(name: &str, count: usize, profile: &Path) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={}", profile.display())])
        .arg(program)
        .args(["--run", name, &count.to_string()])
        .output()
        .map_err(|error| format!("instructions: expected valgrind to run, got {error}"))?;
    let report = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() { Ok(report) } else { Err(report) }
}

/// Instructions of one run: the difference between many and few, so that starting the process does not count.
fn count(name: &str) -> Result<f64, String> {
    let collected = |runs| {
        let report = callgrind(name, runs, Path::new("/dev/null"))?;
        let line = report.lines().find_map(|line| line.split_once("Collected :")).ok_or("instructions: expected a count from valgrind, got none")?;
        line.1.trim().parse::<f64>().map_err(|error| error.to_string())
    };
    Ok((collected(WARM_UP + COUNTED)? - collected(WARM_UP)?) / COUNTED as f64)
}

/// `"name" = number` lines; others are comments.
fn read(text: &str) -> BTreeMap<String, f64> {
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.filter_map(|(name, value)| Some((name.trim().trim_matches('"').to_owned(), value.trim().parse().ok()?))).collect()
}

fn write(counts: &[(&str, f64)]) -> std::io::Result<()> {
    let mut text = String::from(
        "# Instructions of one run, counted by valgrind on AVX2 kernels and one thread; see benches/instructions.rs.\n\
         # Written by: cargo bench --bench instructions -- --update\n",
    );
    writeln!(text, "tolerance = {TOLERANCE}").expect("strings grow");
    for (name, count) in counts {
        writeln!(text, "\"{name}\" = {count:.0}").expect("strings grow");
    }
    std::fs::write(FILE, text)
}

/// Prints every count beside what was allowed; whether none is above.
fn compare(counts: &[(&str, f64)], allowed: &BTreeMap<String, f64>) -> bool {
    let tolerance = allowed.get("tolerance").copied().unwrap_or(TOLERANCE);
    let mut good = true;
    for (name, count) in counts {
        let verdict = match allowed.get(*name).map(|allowed| count / allowed - 1.0) {
            None => "is not in the file".to_owned(),
            Some(change) if change > tolerance => format!("{:+.1}%: MORE than allowed", 100.0 * change),
            Some(change) if change < -tolerance => format!("{:+.1}%: fewer, hold it with --update", 100.0 * change),
            Some(change) => format!("{:+.1}%", 100.0 * change),
        };
        good &= !verdict.contains("MORE") && !verdict.contains("not in");
        println!("{name:<28} {count:>12.0} instructions  {verdict}");
    }
    good
}

fn profile(name: &str) -> Result<(), String> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
    callgrind(name, WARM_UP + COUNTED, &file)?;
    let done = Command::new("callgrind_annotate").arg("--auto=no").arg(&file).status().map_err(|error| error.to_string())?;
    if done.success() { Ok(()) } else { Err("instructions: callgrind_annotate failed".into()) }
}

fn check(update: bool) -> Result<bool, String> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: NOT CHECKED, as valgrind is missing (apt-get install valgrind)");
        return Ok(true);
    }
    let counts = WORKS.iter().map(|work| Ok((work.0, count(work.0)?))).collect::<Result<Vec<_>, String>>()?;
    if update {
        write(&counts).map_err(|error| error.to_string())?;
    }
    let allowed = read(&std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?);
    let good = compare(&counts, &allowed);
    if !good {
        println!("If the change is worth it, write the new counts: cargo bench --bench instructions -- --update");
    }
    Ok(good)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).map(|i| &args[i + 1..]);
    let done = if let Some([name, count, ..]) = after("--run") {
        run(name, count.parse().unwrap_or(0)).map(|()| true)
    } else if let Some([name, ..]) = after("--profile") {
        profile(name).map(|()| true)
    } else {
        check(after("--update").is_some())
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
