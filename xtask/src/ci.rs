//! The checks, cheapest first.

use crate::backend_tests::{self, Task};
use crate::{architecture, book, pipeline, words};
use anyhow::{Context, bail};
use std::num::NonZeroUsize;
use std::process::Command;
use std::time::Instant;

/// How much to check.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also package every crate, build the crate outside the workspace, and check backends on WGPU
    ///
    /// WGPU needs a Vulkan driver; Mesa's for the CPU is enough.
    #[arg(long)]
    full: bool,
}

/// A named cargo call, and what it needs in its environment.
struct Check {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const CHECKS: &[Check] = &[
    Check {
        name: "format",
        arguments: &["fmt", "--all", "--check"],
        environment: &[],
    },
    Check {
        name: "clippy",
        arguments: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        environment: &[],
    },
    Check {
        name: "docs",
        arguments: &["doc", "--workspace", "--no-deps", "--locked"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    // The test command of the README. The parity suite is part of it and runs in full where ../shared/parity is there.
    Check {
        name: "tests",
        arguments: &["test", "--workspace", "--locked"],
        environment: &[],
    },
    Check {
        name: "GPU features",
        arguments: &[
            "check",
            "--package",
            "flm-cli",
            "--features",
            "wgpu,cuda",
            "--locked",
        ],
        // The CUDA version whose bindings are compiled: no toolkit is asked.
        environment: &[("CUDARC_CUDA_VERSION", "13000")],
    },
];

/// Every crate as it would be published, built from its package.
const PACKAGES: Check = Check {
    name: "packages",
    arguments: &[
        "package",
        "--workspace",
        "--exclude",
        "flm-bench",
        "--exclude",
        "flm-tests",
        "--exclude",
        "xtask",
        "--locked",
    ],
    environment: &[],
};

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    timed("architecture", architecture::check)?;
    timed("words", words::check)?;
    for check in CHECKS {
        timed(check.name, || cargo(check))?;
    }
    // With the program that the tests have built.
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    let flm = metadata.target_directory.join("debug/flm");
    let flm = std::path::PathBuf::from(flm);
    timed("book", || book::check(&flm, false))?;
    timed("smallest pipelines", || pipeline::smoke(flm))?;
    if arguments.full {
        timed("packages", || cargo(&PACKAGES))?;
        timed("a crate outside the workspace", outside)?;
        let checks = Task::Checks(NonZeroUsize::MIN);
        timed("checks on WGPU", || backend_tests::on("wgpu", &checks))?;
        timed("memory on WGPU", || {
            backend_tests::on("wgpu", &Task::Soak(300))
        })?;
    }
    println!("every check passed");
    Ok(())
}

/// The library as a crate elsewhere has it, with the versions of the workspace.
fn outside() -> anyhow::Result<()> {
    let folder = std::path::Path::new("examples/library");
    std::fs::copy("Cargo.lock", folder.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    cargo(&Check {
        name: "a crate outside the workspace",
        arguments: &["run", "--manifest-path", "examples/library/Cargo.toml"],
        environment: &[],
    })
}

fn cargo(check: &Check) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(check.arguments)
        .envs(check.environment.iter().copied())
        .status()
        .with_context(|| format!("cannot start cargo for the check of {}", check.name))?;
    if !status.success() {
        bail!(
            "the check of {} failed: cargo {}",
            check.name,
            check.arguments.join(" ")
        );
    }
    Ok(())
}

fn timed(name: &str, check: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("── {name}");
    let started = Instant::now();
    check()?;
    println!(
        "── {name}: passed in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
