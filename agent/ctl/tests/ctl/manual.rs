//! The manual page against the definitions of the command line. Whoever changes a command is led here.

use anyhow::{Context as _, Result};
use clap::{Arg, Command, CommandFactory as _, Parser as _};
use seimonctl::args::Args;

const PAGE: &str = include_str!("../../../../docs/man/seimonctl.1.md");
const BEFORE: &str = "**seimonctl** [*OPTIONS*] ";

/// The text below a heading, without the next one.
fn section(title: &str) -> Result<&'static str> {
    let (_, rest) = PAGE.split_once(&format!("\n## {title}\n")).with_context(|| title.to_owned())?;
    Ok(rest.split("\n## ").next().unwrap_or(rest).trim())
}

/// Every command that does something, with the words that name it.
fn commands(command: &Command, before: &str) -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for inner in command.get_subcommands() {
        let name = format!("{before}{}", inner.get_name());
        if inner.has_subcommands() {
            if inner.is_args_conflicts_with_subcommands_set() {
                // It does something by itself, too.
                found.push((name.clone(), inner.clone()));
            }
            found.extend(commands(inner, &format!("{name} ")));
        } else {
            found.push((name, inner.clone()));
        }
    }
    found
}

fn all_commands() -> Vec<(String, Command)> {
    commands(&Args::command(), "")
}

/// As it is written behind the command: `*FILE*`, `**--to** *PATH*`.
fn usage(argument: &Arg) -> String {
    let values = argument.get_possible_values();
    let value = if values.is_empty() {
        let names = argument.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!("*{name}*")).collect::<Vec<_>>().join(" ")
    } else {
        values.iter().map(|value| format!("*{}*", value.get_name())).collect::<Vec<_>>().join("|")
    };
    let Some(long) = argument.get_long() else { return value };
    if argument.get_action().takes_values() {
        format!("**--{long}** {value}")
    } else {
        format!("**--{long}**")
    }
}

fn synopsis(name: &str, command: &Command) -> String {
    let mut words = vec![format!("**{name}**")];
    words.extend(command.get_positionals().map(usage));
    words.extend(
        command.get_arguments().filter(|argument| !argument.is_positional()).map(|option| {
            if option.is_required_set() { usage(option) } else { format!("[{}]", usage(option)) }
        }),
    );
    words.join(" ")
}

/// A term's paragraph: `term`, then a line that begins with `: `.
fn paragraph(section: &'static str, term: &str) -> Result<String> {
    let (_, rest) =
        section.split_once(&format!("{term}\n: ")).with_context(|| format!("no paragraph for {term}"))?;
    Ok(plain(rest.split("\n\n").next().unwrap_or(rest)))
}

/// Without marks for bold and italics, without capitals.
fn plain(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !matches!(c, '*' | '`')).collect();
    bare.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn assert_says(paragraph: &str, help: &str, of: &str) {
    for sentence in plain(help).split(". ").map(|sentence| sentence.trim_end_matches('.')) {
        assert!(paragraph.contains(sentence), "{of}: the manual page lacks \"{sentence}\" in: {paragraph}");
    }
}

fn help_of(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn the_synopsis_is_that_of_the_definitions() -> Result<()> {
    let expected: Vec<String> =
        all_commands().iter().map(|(name, command)| format!("{BEFORE}{}", synopsis(name, command))).collect();
    let found: Vec<&str> = section("SYNOPSIS")?.lines().collect();
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn the_description_says_of_every_command_and_argument_what_help_says() -> Result<()> {
    let description = section("DESCRIPTION")?;
    for (name, command) in all_commands() {
        let text = paragraph(description, &synopsis(&name, &command))?;
        assert_says(&text, &command.get_about().map(ToString::to_string).unwrap_or_default(), &name);
        for argument in command.get_arguments() {
            assert_says(&text, &help_of(argument), &format!("{name} {}", argument.get_id()));
        }
    }
    let terms = description.lines().filter(|line| line.starts_with("**")).count();
    assert_eq!(terms, all_commands().len(), "the manual page describes a command that is no more");
    Ok(())
}

#[test]
fn the_options_of_every_command_are_described_and_no_option_is_left_over() -> Result<()> {
    let (top, options) = (Args::command(), section("OPTIONS")?);
    for option in top.get_arguments() {
        assert_says(&paragraph(options, &usage(option))?, &help_of(option), option.get_id().as_str());
    }
    let mut known = vec!["help".to_owned(), "version".to_owned()];
    let all = all_commands();
    let everywhere = top.get_arguments().chain(all.iter().flat_map(|(_, command)| command.get_arguments()));
    known.extend(everywhere.filter_map(Arg::get_long).map(str::to_owned));
    for words in PAGE.split("--").skip(1) {
        let word: String = words.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        assert!(word.is_empty() || word.starts_with('-') || known.contains(&word), "--{word} is no option");
    }
    Ok(())
}

fn after_help(command: &Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn the_exit_status_is_that_of_the_help() -> Result<()> {
    let help = after_help(&Args::command());
    let codes = help.lines().skip_while(|line| *line != "Exit codes:").skip(1);
    let expected: Vec<String> = codes
        .map_while(|line| line.trim().split_once("  "))
        .map(|(code, meaning)| format!("| {code} | {} |", meaning.trim()))
        .collect();
    assert_eq!(expected.len(), 5, "{help}");
    let rows = section("EXIT STATUS")?.lines().filter(|line| line.starts_with("| ") && !line.contains("| |"));
    assert_eq!(rows.collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn every_example_of_the_page_and_of_the_help_is_a_command_line_that_is_understood() -> Result<()> {
    let mut helps = vec![section("EXAMPLES")?.to_owned()];
    helps.push(after_help(&Args::command()));
    helps.extend(Args::command().get_subcommands().map(after_help));
    helps.extend(all_commands().iter().map(|(_, command)| after_help(command)));
    let mut count = 0;
    for line in helps.iter().flat_map(|help| help.lines()).map(str::trim) {
        if line.starts_with("seimonctl ") {
            // Up to what is another program's, the shell's or a remark.
            let own = line.split([' ', '|', '>']).take_while(|word| !word.is_empty());
            Args::try_parse_from(own).with_context(|| line.to_owned())?;
            count += 1;
        }
    }
    assert!(count > 12, "only {count} examples were found");
    Ok(())
}
