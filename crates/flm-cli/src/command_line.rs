//! The command line as typed, for model cards and resume hints.

/// The words of a command.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine(Vec<String>);

impl CommandLine {
    /// Returns the command line of this process.
    pub(crate) fn current() -> Self {
        Self(
            std::env::args_os()
                .skip(1)
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
        )
    }

    /// Returns the command, quoted for a shell.
    pub(crate) fn shown(&self) -> String {
        std::iter::once("flm".to_owned())
            .chain(self.0.iter().map(|word| quoted(word)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Returns the command that resumes this one.
    pub(crate) fn resumed(&self) -> String {
        let keep = |word: &&String| !["--force", "--resume"].contains(&word.as_str());
        let words = self
            .0
            .iter()
            .filter(keep)
            .cloned()
            .chain(["--resume".to_owned()]);
        Self(words.collect()).shown()
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_cut_them() {
        let words = [
            "train", "--out", "my run", "--force", "--set", "a=[1,2]", "it's",
        ];
        let command = CommandLine(words.map(str::to_owned).to_vec());
        assert_eq!(
            command.shown(),
            r"flm train --out 'my run' --force --set 'a=[1,2]' 'it'\''s'"
        );
        assert_eq!(
            command.resumed(),
            r"flm train --out 'my run' --set 'a=[1,2]' 'it'\''s' --resume"
        );
    }
}
