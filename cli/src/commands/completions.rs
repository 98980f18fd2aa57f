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
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "carbon-ml", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script).map_err(CliError::Output)
}
