//! `carbon-ml completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::CliError;

/// Write a completion script for a shell
///
/// The script goes to standard output; put it where your shell looks for completions.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct CompletionsArgs {
    shell: Shell,
}

const HELP: &str = "\
Examples:
  carbon-ml completions bash > ~/.local/share/bash-completion/completions/carbon-ml
  carbon-ml completions zsh > ~/.zfunc/_carbon-ml
  carbon-ml completions fish > ~/.config/fish/completions/carbon-ml.fish
  carbon-ml completions powershell >> $PROFILE";

pub fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    std::io::Write::write_all(&mut std::io::stdout(), script(args.shell).as_bytes()).map_err(CliError::Output)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "carbon-ml", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        // The generator takes the hyphen of the name for a subcommand in its labels, but not where it jumps to them.
        Shell::Bash => script.replace("carbon__subcmd__ml", "carbon__ml"),
        _ => script,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bash_completes_below_the_first_level() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script(Shell::Bash)).unwrap();
        let ask = "source \"$1\"; COMP_WORDS=(carbon-ml models pu); COMP_CWORD=2; \
                   _carbon__ml carbon-ml pu models 2>/dev/null; echo \"${COMPREPLY[@]}\"";
        let Ok(output) = std::process::Command::new("bash").args(["-c", ask, "bash"]).arg(file.path()).output() else {
            // No bash on this machine.
            return;
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "pull");
    }
}
