//! The program `starling`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    starling::cli::main()
}
