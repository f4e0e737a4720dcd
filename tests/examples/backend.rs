//! The checks of [`flm_tests::backend`] on a device: `cargo xtask backend-tests --device D`.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn_flex::Flex;
use flm_tests::backend::{Bounds, lines};
use flm_tests::parity::Source;
use std::process::ExitCode;

fn main() -> ExitCode {
    let device = std::env::args().nth(1).unwrap_or_else(|| "cpu".to_owned());
    match device.as_str() {
        "cpu" => run::<Autodiff<Flex>>(&Bounds::SINGLE),
        #[cfg(feature = "wgpu")]
        "wgpu" => run::<Autodiff<burn::backend::Wgpu>>(&Bounds::WGPU),
        #[cfg(feature = "cuda")]
        "cuda" | "cuda:0" => run::<Autodiff<burn::backend::Cuda>>(&Bounds::CUDA),
        other => {
            println!("built without the device `{other}`: build with --features wgpu,cuda");
            ExitCode::from(2)
        }
    }
}

fn run<B: AutodiffBackend>(bounds: &Bounds) -> ExitCode {
    match lines::<B>(&Source::golden(), bounds) {
        Ok(lines) => {
            for line in &lines {
                println!("{line}");
            }
            let failed = lines.iter().filter(|line| !line.holds()).count();
            println!("{} checks, {failed} that fail", lines.len());
            ExitCode::from(u8::from(failed > 0))
        }
        Err(message) => {
            println!("{message}");
            ExitCode::from(2)
        }
    }
}
