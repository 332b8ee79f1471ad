//! What the workload may reach: the network policy as plain data and pure functions.
//!
//! options → [`rule`] → [`resolve`] → [`pins`] → [`hosts`] and [`receive`], and at run time
//! [`decode`] → [`decide`]. But for `resolve` nothing here makes a system call.

pub mod address;
pub mod class;
pub mod decide;
pub mod decode;
pub mod hosts;
pub mod pins;
pub mod prefix;
pub mod receive;
pub mod resolve;
pub mod rule;
pub mod socket;

/// The text of an error about a value.
pub fn expected(what: &str, value: &str) -> String {
    format!("expected {what}, not \"{value}\"")
}
