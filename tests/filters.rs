//! The filters, all of them: the compiled programs against a specification that does not come
//! from their sources, in an interpreter as strict as the kernel's loader, and in the kernel.

mod support;

mod filters {
    pub mod bpf;
    pub mod live;
    pub mod spec;
    pub mod vectors;
}

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

use filters::bpf::{Data, Program};
use filters::spec::{self, Arch, Args, GROUPS, Spec, programs};
use filters::vectors;

/// The standard output of sbx-init, asked a question: it starts nothing.
fn ask(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(support::sbx_init()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

fn ask_text(arguments: &[&str]) -> String {
    String::from_utf8(ask(arguments)).unwrap()
}

/// A group's program, for an architecture, as `struct sock_filter`s.
fn compiled(group: &str, arch: Arch) -> Vec<u8> {
    ask(&["--print-filter", group, "--arch", arch.name(), "--format", "bpf"])
}

/// A program and what it should do.
struct Subject {
    group: &'static str,
    arch: Arch,
    program: Program,
    spec: Spec,
}

fn subjects() -> &'static [Subject] {
    static SUBJECTS: OnceLock<Vec<Subject>> = OnceLock::new();
    SUBJECTS.get_or_init(|| {
        let of_arch = |arch| programs().map(move |group| (group, arch));
        let load = |(group, arch)| {
            let program = Program::load(&compiled(group, arch));
            let program = program.unwrap_or_else(|what| panic!("{group} {arch:?}: {what}"));
            Subject { group, arch, program, spec: Spec::new(group, arch) }
        };
        Arch::ALL.into_iter().flat_map(of_arch).map(load).collect()
    })
}

/// What went wrong, up to ten of it.
#[derive(Default)]
struct Mismatches(Vec<String>);

impl Mismatches {
    fn compare(&mut self, subject: &Subject, nr: u32, audit_arch: u32, args: &Args) {
        let expected = subject.spec.verdict(nr, audit_arch, args);
        let got = subject.program.run(&Data::new(nr, audit_arch, args));
        if got != expected.value() {
            self.push(subject, nr, audit_arch, args, got, &format!("{expected:?}"));
        }
    }

    #[cold]
    fn push(
        &mut self,
        subject: &Subject,
        nr: u32,
        audit_arch: u32,
        args: &Args,
        got: u32,
        expected: &str,
    ) {
        let (group, arch) = (subject.group, subject.arch);
        let call = arch.call(nr).unwrap_or("?");
        self.0.push(format!(
            "{group} {arch:?}: {call} ({nr:#x}) of {audit_arch:#x} with {args:x?}: \
             got {got:#x}, expected {expected}"
        ));
        if self.0.len() == 10 {
            self.report();
        }
    }

    fn report(&self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

#[test]
fn every_number_gets_what_the_specification_says() {
    let mut mismatches = Mismatches::default();
    for subject in subjects() {
        for nr in vectors::numbers() {
            for args in vectors::few() {
                mismatches.compare(subject, nr, subject.arch.audit(), &args);
            }
        }
    }
    mismatches.report();
}

#[test]
fn a_foreign_architecture_is_killed_whatever_it_calls() {
    let mut mismatches = Mismatches::default();
    for subject in subjects() {
        for foreign in vectors::foreign(subject.arch) {
            for nr in vectors::numbers() {
                for args in [[0; 6], [u64::MAX; 6]] {
                    mismatches.compare(subject, nr, foreign, &args);
                }
            }
        }
    }
    mismatches.report();
}

fn every_argument_gets_what_the_specification_says(arch: Arch) {
    let mut mismatches = Mismatches::default();
    for subject in subjects().iter().filter(|subject| subject.arch == arch) {
        for (nr, call) in &subject.spec.calls {
            vectors::many(call, &mut |args| {
                mismatches.compare(subject, *nr, arch.audit(), args);
            });
        }
    }
    mismatches.report();
}

#[test]
fn every_argument_gets_what_the_specification_says_on_x86_64() {
    every_argument_gets_what_the_specification_says(Arch::X86_64);
}

#[test]
fn every_argument_gets_what_the_specification_says_on_aarch64() {
    every_argument_gets_what_the_specification_says(Arch::Aarch64);
}

/// Nothing else that the rules are about has more than 32 bits, so this makes the tests above hold
/// for all upper halves instead of some.
#[test]
fn no_program_reads_the_upper_half_of_more_than_pointers_or_the_instruction_pointer() {
    for Subject { group, arch, program, .. } in subjects() {
        let low_halves = (0..6).map(Data::low_half);
        let high_halves = spec::pointers(group).iter().map(|pointer| Data::low_half(*pointer) + 1);
        let known: Vec<_> = low_halves.chain(high_halves).chain([Data::NR, Data::ARCH]).collect();
        for word in program.words() {
            assert!(known.contains(&word), "{group} {arch:?} loads word {word}");
        }
    }
}

#[test]
fn a_call_outside_the_group_costs_nothing_because_the_kernel_caches_that_it_is_allowed() {
    let mut costly = Vec::new();
    for Subject { group, arch, program, spec } in subjects() {
        for nr in 0..1024 {
            if spec.looks_at(nr) == program.is_constant_allow(nr, arch.audit()) {
                costly.push(format!("{group} {arch:?}: {nr} {}", arch.call(nr).unwrap_or("?")));
            }
        }
    }
    assert!(costly.is_empty(), "constant-allow and in the group, or neither: {costly:#?}");
}

#[test]
fn the_list_names_each_group_with_its_default() {
    let list = ask_text(&["--list-filters"]);
    let listed: Vec<_> = list
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next())
        })
        .collect();
    assert_eq!(listed.iter().map(|line| (line.0, line.1)).collect::<Vec<_>>(), GROUPS);
    assert!(listed.iter().all(|line| line.2.is_some()), "no word on what it denies: {list}");
}

#[test]
fn the_readable_form_names_the_calls_of_its_group_and_no_others() {
    let mut wrong = Vec::new();
    for Subject { group, arch, spec, .. } in subjects() {
        let text = ask_text(&["--print-filter", group, "--arch", arch.name()]);
        let explicit = ["--print-filter", group, "--arch", arch.name(), "--format", "asm"];
        assert_eq!(text, ask_text(&explicit));
        let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
        let words: BTreeSet<_> = text.split(|c| !is_word(c)).collect();
        let named = words.into_iter().filter(|word| arch.number(word).is_some()).collect();
        let calls: BTreeSet<_> = spec.calls.iter().map(|(_, call)| *call).collect();
        let difference: Vec<_> = calls.symmetric_difference(&named).collect();
        if !difference.is_empty() {
            wrong.push(format!("{group} {arch:?}: {difference:?}"));
        }
    }
    assert!(wrong.is_empty(), "not named, or named for nothing: {wrong:#?}");
}

#[test]
fn the_architecture_of_the_machine_needs_no_naming() {
    for group in programs() {
        let here = ask(&["--print-filter", group, "--format", "bpf"]);
        assert!(here == compiled(group, Arch::NATIVE), "{group}");
    }
}
