//! Compiles `filters/*.json` into BPF programs for both architectures, whatever the host.
//!
//! Each file is one group, of named filters in seccompiler's JSON form. seccompiler compiles their
//! rules one by one; here they are gathered by system call behind a search for its number, and
//! in front stands what seccompiler 0.5 lacks: see [`prologue`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use serde::Deserialize;

/// The groups that are merged into `default`: those of the table in `src/filters/mod.rs` that are
/// on by default. `families` last: what `socket` and `socketpair` have in common stands there once.
const DEFAULT: [&str; 5] = ["io-uring", "keys", "tty", "unix", "families"];

// seccompiler's JSON form. Its own front end does not know the numbers of the newest system
// calls, so names are looked up in the `syscalls` tables instead.
type Group = BTreeMap<String, Filter>;

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Filter {
    mismatch_action: SeccompAction,
    match_action: SeccompAction,
    filter: Vec<Rule>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Rule {
    syscall: String,
    #[serde(default)]
    args: Vec<Condition>,
    #[serde(default, rename = "comment")]
    _comment: String,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Condition {
    index: u8,
    #[serde(rename = "type")]
    length: SeccompCmpArgLen,
    op: SeccompCmpOp,
    val: u64,
    #[serde(default, rename = "comment")]
    _comment: String,
}

struct Arch {
    name: &'static str,
    target: TargetArch,
    /// `AUDIT_ARCH_*` of linux/audit.h.
    audit: u32,
    number: fn(&str) -> Option<u32>,
    x32: bool,
}

const ARCHS: [Arch; 2] = [
    Arch {
        name: "x86_64",
        target: TargetArch::x86_64,
        audit: 0xc000_003e,
        number: |name| Some(name.parse::<syscalls::x86_64::Sysno>().ok()?.id() as u32),
        x32: true,
    },
    Arch {
        name: "aarch64",
        target: TargetArch::aarch64,
        audit: 0xc000_00b7,
        number: |name| Some(name.parse::<syscalls::aarch64::Sysno>().ok()?.id() as u32),
        x32: false,
    },
];

// Opcodes of linux/bpf_common.h, return values of linux/seccomp.h, offsets of struct seccomp_data.
const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGE_K: u16 = 0x35;
const JMP_JSET_K: u16 = 0x45;
const RET_K: u16 = 0x06;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const ENOSYS: u32 = 38;
const BPF_MAXINSNS: usize = 4096;

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// A call of another architecture (i386 `int 0x80`, AArch32) has other numbers: it ends the
/// process. Leaves the number loaded. The x32 calls of x86_64 have bit 30 set: the kernel's answer without x32, ENOSYS.
/// A tracer that skips a call sets the number to -1, whose result must be the tracer's.
fn prologue(arch: &Arch) -> BpfProgram {
    let mut program = vec![
        op(LD_W_ABS, 0, 0, OFFSET_ARCH),
        op(JMP_JEQ_K, 1, 0, arch.audit),
        op(RET_K, 0, 0, RET_KILL_PROCESS),
        op(LD_W_ABS, 0, 0, OFFSET_NR),
    ];
    if arch.x32 {
        program.extend([
            op(JMP_JEQ_K, 2, 0, u32::MAX),
            op(JMP_JSET_K, 0, 1, 0x4000_0000),
            op(RET_K, 0, 0, RET_ERRNO | ENOSYS),
        ]);
    }
    program
}

/// The instructions that carry out one rule: they return its action, or fall through at their end.
///
/// Taken out of what seccompiler makes of the rule alone: in front of them stand its architecture
/// check, the load of the number, the comparison with it and two jumps, behind them two returns.
fn rule_code(rule: &Rule, number: u32, action: &SeccompAction, arch: &Arch) -> BpfProgram {
    if rule.args.is_empty() {
        return vec![op(RET_K, 0, 0, action.clone().into())];
    }
    let conditions = rule
        .args
        .iter()
        .map(|c| SeccompCondition::new(c.index, c.length.clone(), c.op.clone(), c.val).unwrap());
    let rules = [(number.into(), vec![SeccompRule::new(conditions.collect()).unwrap()])];
    let filter =
        SeccompFilter::new(rules.into(), SeccompAction::Allow, action.clone(), arch.target);
    let compiled: BpfProgram = filter.unwrap().try_into().unwrap();
    let (head, tail) = compiled.split_at(7);
    let (code, returns) = tail.split_at(tail.len() - 2);
    assert!(head[4] == op(JMP_JEQ_K, 0, 1, number) && head[5].code == JMP_JA);
    assert!(returns.iter().all(|last| *last == op(RET_K, 0, 0, RET_ALLOW)));
    code.to_vec()
}

/// The rules that each system call of the groups goes through, in this order.
fn rules_by_number(groups: &[&Group], arch: &Arch, name: &str) -> BTreeMap<u32, Vec<BpfProgram>> {
    let mut calls: BTreeMap<u32, Vec<BpfProgram>> = BTreeMap::new();
    for filter in groups.iter().flat_map(|group| group.values()) {
        assert_eq!(filter.mismatch_action, SeccompAction::Allow, "{name}: a group denies, no more");
        for rule in &filter.filter {
            let known = ARCHS.iter().any(|arch| (arch.number)(&rule.syscall).is_some());
            assert!(known, "{name}: no architecture has a system call {}", rule.syscall);
            if let Some(number) = (arch.number)(&rule.syscall) {
                let code = rule_code(rule, number, &filter.match_action, arch);
                calls.entry(number).or_default().push(code);
            }
        }
    }
    calls
}

/// The code of all calls, and where each one's begins. What two calls have in common at their end
/// stands there once. Built from behind, as BPF jumps forward only: places count from the end.
fn layout(calls: BTreeMap<u32, Vec<BpfProgram>>) -> (BpfProgram, BTreeMap<u32, usize>) {
    let mut code = vec![op(RET_K, 0, 0, RET_ALLOW)];
    let mut placed = vec![(Vec::new(), code.len())];
    let mut starts = BTreeMap::new();
    for (number, rules) in calls {
        let place = |rest: &[BpfProgram]| placed.iter().find(|(known, _)| known == rest);
        let own = (0..).find(|own| place(&rules[*own..]).is_some()).unwrap();
        let shared = place(&rules[own..]).unwrap().1;
        // A rule without conditions always returns.
        if own > 0 && rules[own - 1].len() > 1 {
            code.insert(0, op(JMP_JA, 0, 0, (code.len() - shared) as u32));
        }
        for first in (0..own).rev() {
            code.splice(0..0, rules[first].iter().cloned());
            placed.push((rules[first..].to_vec(), code.len()));
        }
        starts.insert(number, if own > 0 { code.len() } else { shared });
    }
    let length = code.len();
    (code, starts.into_iter().map(|(number, place)| (number, length - place)).collect())
}

/// A binary search for the loaded number, which jumps to the code of each call. The kernel walks
/// the program once for every number when it is installed, so short ways count.
fn search(numbers: &[(u32, usize)], program: &mut Vec<Step>) {
    if numbers.len() <= 3 {
        program.extend(numbers.iter().map(|(number, start)| Step::Is(*number, *start)));
        program.push(Step::Allow);
        return;
    }
    let (low, high) = numbers.split_at(numbers.len() / 2);
    let (mut low_steps, mut high_steps) = (Vec::new(), Vec::new());
    search(low, &mut low_steps);
    search(high, &mut high_steps);
    program.push(Step::AtLeast(high[0].0, low_steps.iter().map(Step::length).sum()));
    program.extend(low_steps);
    program.extend(high_steps);
}

enum Step {
    /// Go to this place in the code behind the search if the number is this one.
    Is(u32, usize),
    /// Skip so many instructions if the number is at least this one.
    AtLeast(u32, usize),
    Allow,
}

impl Step {
    fn length(&self) -> usize {
        match self {
            Self::Is(..) | Self::AtLeast(..) => 2,
            Self::Allow => 1,
        }
    }
}

fn program(groups: &[&Group], arch: &Arch, name: &str) -> BpfProgram {
    let (code, starts) = layout(rules_by_number(groups, arch, name));
    let mut steps = Vec::new();
    search(&starts.into_iter().collect::<Vec<_>>(), &mut steps);

    let mut program = prologue(arch);
    let begin = program.len() + steps.iter().map(Step::length).sum::<usize>();
    // Conditional jumps reach 255 instructions only.
    for step in steps {
        let here = program.len();
        match step {
            Step::Is(number, start) => program.extend([
                op(JMP_JEQ_K, 0, 1, number),
                op(JMP_JA, 0, 0, (begin + start - here - 2) as u32),
            ]),
            Step::AtLeast(number, skip) => {
                program.extend([op(JMP_JGE_K, 0, 1, number), op(JMP_JA, 0, 0, skip as u32)]);
            }
            Step::Allow => program.push(op(RET_K, 0, 0, RET_ALLOW)),
        }
    }
    program.extend(code);
    assert!(program.len() <= BPF_MAXINSNS, "{name}: too long");
    program
}

fn main() {
    println!("cargo::rerun-if-changed=filters");
    println!("cargo::rerun-if-changed=build.rs");

    let mut files: Vec<_> = fs::read_dir("filters").unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let group =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        groups.insert(file.file_stem().unwrap().to_str().unwrap().to_owned(), group);
    }

    let mut out = String::new();
    let mut names: BTreeMap<String, ()> = BTreeMap::new();
    for arch in &ARCHS {
        let mut emit = |name: &str, members: &[&Group]| {
            let constant = name.replace('-', "_").to_uppercase();
            let program = program(members, arch, name);
            writeln!(
                out,
                "pub static {constant}_{}: [SockFilter; {}] = [",
                arch.name.to_uppercase(),
                program.len()
            )
            .unwrap();
            for sock_filter { code, jt, jf, k } in program {
                writeln!(
                    out,
                    "    SockFilter {{ code: {code:#x}, jt: {jt}, jf: {jf}, k: {k:#x} }},"
                )
                .unwrap();
            }
            out.push_str("];\n");
        };
        for (name, group) in &groups {
            emit(name, &[group]);
        }
        emit("default", &DEFAULT.map(|name| &groups[name]));
        for rule in groups.values().flat_map(|g| g.values()).flat_map(|f| &f.filter) {
            names.insert(rule.syscall.clone(), ());
        }
    }
    // The names that the disassembly shows.
    for arch in &ARCHS {
        let known: Vec<_> =
            names.keys().filter_map(|n| Some(((arch.number)(n)?, n.as_str()))).collect();
        writeln!(
            out,
            "pub static NAMES_{}: [(u32, &str); {}] = {known:?};",
            arch.name.to_uppercase(),
            known.len()
        )
        .unwrap();
    }
    let path = Path::new(&env::var_os("OUT_DIR").unwrap()).join("filters.rs");
    fs::write(path, out).unwrap();
}
