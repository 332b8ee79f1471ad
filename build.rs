//! Compiles `filters/*.json` and `filters/notify/*.json` into BPF programs for both architectures,
//! whatever the host.
//!
//! Each file is one group, of named filters in seccompiler's JSON form. seccompiler compiles their
//! rules one by one; here they are gathered by system call behind a search for its number, and
//! what seccompiler 0.5 lacks is added: see [`prologue`] and [`Action`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use serde::Deserialize;

/// The programs that are made of other files than the one of their name. `default` is all groups
/// that are on by default in the table of `src/filters/mod.rs`; `families` last: what `socket` and
/// `socketpair` have in common stands there once.
const MERGED: [(&str, &[&str]); 2] =
    [("default", &["io-uring", "keys", "tty", "unix", "families"]), ("udp", &["udp", "fast-open"])];

/// The programs that ask the supervisor, each with the files of `filters/notify` that it is made of.
const NOTIFY: [(&str, &[&str]); 4] = [
    ("notify-listen", &["listen"]),
    ("notify-tcp", &["listen", "connect"]),
    ("notify-udp", &["listen", "connect", "datagram"]),
    ("notify-broker-tcp", &["listen", "connect", "socket"]),
];

// seccompiler's JSON form. Its own front end does not know the numbers of the newest system
// calls, so names are looked up in the `syscalls` tables instead.
type Group = BTreeMap<String, Filter>;

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Filter {
    mismatch_action: Action,
    match_action: Action,
    filter: Vec<Rule>,
}

/// Those of seccompiler's actions that a group may have, and `notify`, which it does not know.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
enum Action {
    Allow,
    Errno(u16),
    Notify,
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Self::Allow => RET_ALLOW,
            Self::Errno(errno) => RET_ERRNO | u32::from(errno),
            Self::Notify => RET_USER_NOTIF,
        }
    }
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
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
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
fn rule_code(rule: &Rule, number: u32, action: Action, arch: &Arch) -> BpfProgram {
    let answer = op(RET_K, 0, 0, action.value());
    if rule.args.is_empty() {
        return vec![answer];
    }
    let conditions = rule
        .args
        .iter()
        .map(|c| SeccompCondition::new(c.index, c.length.clone(), c.op.clone(), c.val).unwrap());
    let rules = [(number.into(), vec![SeccompRule::new(conditions.collect()).unwrap()])];
    let stand_in = SeccompAction::Trap;
    let filter =
        SeccompFilter::new(rules.into(), SeccompAction::Allow, stand_in.clone(), arch.target);
    let compiled: BpfProgram = filter.unwrap().try_into().unwrap();
    let (head, tail) = compiled.split_at(7);
    let (code, returns) = tail.split_at(tail.len() - 2);
    assert!(head[4] == op(JMP_JEQ_K, 0, 1, number) && head[5].code == JMP_JA);
    assert!(returns.iter().all(|last| *last == op(RET_K, 0, 0, RET_ALLOW)));
    let stand_in = op(RET_K, 0, 0, stand_in.into());
    code.iter().map(|step| if *step == stand_in { &answer } else { step }).cloned().collect()
}

/// The rules that each system call of the groups goes through, in this order.
fn rules_by_number(groups: &[&Group], arch: &Arch, name: &str) -> BTreeMap<u32, Vec<BpfProgram>> {
    let mut calls: BTreeMap<u32, Vec<BpfProgram>> = BTreeMap::new();
    for filter in groups.iter().flat_map(|group| group.values()) {
        assert_eq!(filter.mismatch_action, Action::Allow, "{name}: a rule only takes away");
        for rule in &filter.filter {
            let known = ARCHS.iter().any(|arch| (arch.number)(&rule.syscall).is_some());
            assert!(known, "{name}: no architecture has a system call {}", rule.syscall);
            if let Some(number) = (arch.number)(&rule.syscall) {
                let code = rule_code(rule, number, filter.match_action, arch);
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

/// The groups in a directory, by name.
fn read(directory: &str) -> BTreeMap<String, Group> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let group = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let group =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        (file.file_stem().unwrap().to_str().unwrap().to_owned(), group)
    };
    json.map(group).collect()
}

fn main() {
    println!("cargo::rerun-if-changed=filters");
    println!("cargo::rerun-if-changed=build.rs");

    let groups = read("filters");
    let notify = read("filters/notify");
    let mut programs: BTreeMap<&str, Vec<&Group>> =
        groups.iter().map(|(name, group)| (name.as_str(), vec![group])).collect();
    for (name, members) in MERGED {
        programs.insert(name, members.iter().map(|member| &groups[*member]).collect());
    }
    for (name, members) in NOTIFY {
        programs.insert(name, members.iter().map(|member| &notify[*member]).collect());
    }

    let mut out = String::new();
    let mut names: BTreeMap<String, ()> = BTreeMap::new();
    for arch in &ARCHS {
        for (name, members) in &programs {
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
        }
        let filters = groups.values().chain(notify.values()).flat_map(|group| group.values());
        for rule in filters.flat_map(|filter| &filter.filter) {
            names.insert(rule.syscall.clone(), ());
        }
    }
    // The names that the disassembly shows, with their numbers in the order of ARCHS: -1 for none.
    let known: Vec<_> = names
        .keys()
        .map(|name| {
            (name, ARCHS.each_ref().map(|arch| (arch.number)(name).map_or(-1, |n| n as i16)))
        })
        .collect();
    writeln!(out, "pub static NAMES: [(&str, [i16; 2]); {}] = {known:?};", known.len()).unwrap();
    let path = Path::new(&env::var_os("OUT_DIR").unwrap()).join("filters.rs");
    fs::write(path, out).unwrap();
}
