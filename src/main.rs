//! sbx-init: the last mile of a sandbox, between bubblewrap and an untrusted command.
//!
//! argv → [`cli::Request`] → [`plan::Plan`] → [`stub`] → [`init`] → [`confine`] → exec
#![cfg_attr(not(test), no_main)]

mod cli;
mod confine;
mod filters;
mod host;
mod init;
mod namespaces;
mod network;
mod notify;
mod plan;
mod policy;
mod report;
mod stub;
mod sys;

use std::ffi::OsString;

use cli::Request;
use report::{Context, Error, Stage};

/// Carries out a command line, program name first, and returns the exit status.
#[cfg_attr(test, allow(dead_code))]
fn run(arguments: Vec<OsString>) -> i32 {
    // Before anything can fail or wait: a signal from here on is kept for the workload.
    let result = stub::take_over_process().and_then(|()| match cli::parse(arguments)? {
        Request::Print(text) => print(&text),
        Request::Run(policy) => stub::run(plan::Plan::new(*policy)?),
    });
    result.unwrap_or_else(|error| error.print())
}

fn print(mut text: &[u8]) -> Result<i32, Error> {
    while !text.is_empty() {
        let length = nix::unistd::write(std::io::stdout(), text);
        text = &text[length.context(Stage::Options, "standard output")?..];
    }
    Ok(0)
}
