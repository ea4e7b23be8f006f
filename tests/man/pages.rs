//! Man pages from the definition of the command line: one for the program and one for each command.

use std::io;
use std::path::{Path, PathBuf};

use ca_overlap::cli::Cli;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// Writes all pages into `directory`, which is created if it is missing. The pages contain no date,
/// so the same sources give the same bytes.
pub(crate) fn write(directory: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let version = program.get_version().unwrap_or_default().to_owned();
    let mut written = Vec::new();
    for command in std::iter::once(&program).chain(program.get_subcommands()) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, page(command, &version)?)?;
        written.push(path);
    }
    Ok(written)
}

fn page(command: &Command, version: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .source(format!("ca-overlap {version}"))
        .manual("ca-overlap manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    sections(&after).to_writer(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    Ok(portable(&page).into_bytes())
}

/// Removes trailing blanks and escapes non-ASCII characters, for old formatters.
fn portable(page: &str) -> String {
    let escaped = |c: char| {
        if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", u32::from(c)) }
    };
    let line = |line: &str| line.trim_end().chars().map(escaped).chain(["\n".to_owned()]).collect();
    page.lines().map(line).collect::<Vec<String>>().concat()
}

/// Formats the text after the flags in `--help`: parts with a heading, whose lines are kept, and
/// the sentence about exit codes.
fn sections(after: &str) -> Roff {
    let mut roff = Roff::default();
    for part in after.split("\n\n") {
        if let Some((head, lines)) = part.split_once(":\n") {
            roff.control("SH", [head.to_uppercase().as_str()]);
            roff.control("nf", []);
            for line in lines.lines() {
                roff.text([roman(line)]);
            }
            roff.control("fi", []);
        } else if let Some((before, codes)) = part.split_once("Exit code: ") {
            roff.control("SH", ["EXIT STATUS"]);
            roff.text([roman(format!("{before}{codes}").replace('\n', " "))]);
        }
    }
    roff
}
