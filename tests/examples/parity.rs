//! Runs the parity checks on a folder laid out like the fixtures: `cargo xtask parity DIR`.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use burn::backend::Autodiff;
use burn_flex::Flex;
use flm_tests::parity::{Line, Models, Parity, Source, Verdict, discrete, text};
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [folder, flm] = arguments.as_slice() else {
        println!("expected a folder of fixtures and the path of flm");
        return ExitCode::from(2);
    };
    match run(Path::new(folder), Path::new(flm)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            println!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Prints a line for every tensor. Returns whether all agree.
fn run(folder: &Path, flm: &Path) -> Result<bool, String> {
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let models = folder.join("model");
    let converted = Models::convert(&models, home.path(), &|from, out, denoiser| {
        let mut command = Command::new(flm);
        command.arg("convert").arg(from).arg("--out").arg(out);
        if let Some(denoiser) = denoiser {
            command.arg("--denoiser").arg(denoiser);
        }
        let output = command
            .output()
            .map_err(|error| format!("cannot start {}: {error}", flm.display()))?;
        if output.status.success() {
            println!("converted {}", from.display());
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    })?;
    let parity = Parity::<Autodiff<Flex>>::open(&Source::Folder(models.clone(), converted))?;
    let mut lines = parity.lines();
    let tokenizers = folder.join("../tokenizers");
    lines.extend(text::<Flex>(&folder.join("text"), &tokenizers)?);
    let of_discrete = models.join("discrete.safetensors");
    lines.extend(discrete::discrete::<Autodiff<Flex>>(&of_discrete)?);
    for line in &lines {
        println!("{line}");
    }
    let failed = lines.iter().filter(|line| !line.holds()).count();
    let skipped = |line: &&Line| matches!(line.verdict, Verdict::Input | Verdict::Skipped(_));
    let compared = lines.len() - lines.iter().filter(skipped).count();
    println!(
        "{compared} of {} entries compared, {failed} disagree",
        lines.len()
    );
    Ok(failed == 0 && compared > 0)
}
