//! How the command is found and executed, and what of its caller it sees unchanged.

mod support;

use std::fs;
use std::io;
use std::process::Stdio;

use support::scratch::Scratch;
use support::{EVERYWHERE, Outcome, Place, Run, User, fixture, sbx_init};

fn standalone() -> Run {
    Run::new(User::Ordinary, Place::Standalone)
}

/// Runs a shell script before sbx-init, which it executes with `exec "$@"`.
fn after(run: Run, script: &str) -> Run {
    run.before(["sh", "-c", &format!("{script}; exec \"$@\""), "sh"])
}

/// With this PATH, set or not, and this working directory.
fn with_path(path: Option<&str>, directory: &str) -> Run {
    let change = match path {
        Some(path) => format!("cd {directory}; export PATH='{path}'"),
        None => format!("cd {directory}; unset PATH"),
    };
    after(standalone(), &change)
}

const HELLO: &str = "#!/bin/sh\necho hello \"$0\" \"$@\"\n";

#[track_caller]
fn fails(outcome: &Outcome, code: i32, name: &str, errno: &str) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    assert!(
        outcome.stderr.starts_with(&format!("sbx-init: exec: {name}: {errno}: ")),
        "{outcome:?}"
    );
}

#[test]
fn the_first_executable_along_the_path_is_taken() {
    let scratch = Scratch::new("order");
    for directory in ["a", "b"] {
        scratch.executable(&format!("{directory}/hello"), 0o755, HELLO);
    }
    let [a, b] = ["a", "b"].map(|name| scratch.file(name));
    let here = scratch.path().to_str().unwrap();
    let hello = |path: &str| with_path(Some(path), here).run(["hello"]);
    assert_eq!(hello(&format!("/no/such:{a}:{b}")).success(), format!("hello {a}/hello\n"));
    assert_eq!(hello(&format!("{b}:{a}")).success(), format!("hello {b}/hello\n"));
    // A file in place of a directory, and a name too long, are passed over.
    let long = "x".repeat(5000);
    assert_eq!(hello(&format!("{a}/hello:/{long}:{b}")).success(), format!("hello {b}/hello\n"));
    assert_eq!(hello("b").success(), "hello b/hello\n");
    fails(&hello("/no/such:/usr/bin"), 127, "hello", "ENOENT");
}

#[test]
fn an_empty_element_of_the_path_is_the_working_directory() {
    let scratch = Scratch::new("empty");
    scratch.executable("hello", 0o755, HELLO);
    let here = scratch.path().to_str().unwrap();
    for path in ["", ":/usr/bin", "/no/such:", "/no/such::/usr/bin"] {
        assert_eq!(with_path(Some(path), here).run(["hello"]).success(), "hello hello\n", "{path}");
    }
    fails(&with_path(Some("/usr/bin"), here).run(["hello"]), 127, "hello", "ENOENT");
}

#[test]
fn without_a_path_the_standard_directories_are_searched() {
    let scratch = Scratch::new("default");
    scratch.executable("hello", 0o755, HELLO);
    let here = scratch.path().to_str().unwrap();
    assert_eq!(with_path(None, here).run(["echo", "a"]).success(), "a\n");
    fails(&with_path(None, here).run(["hello"]), 127, "hello", "ENOENT");
}

#[test]
fn a_file_that_may_not_be_executed_is_passed_over_and_remembered() {
    let scratch = Scratch::new("denied");
    scratch.executable("a/hello", 0o644, HELLO);
    scratch.executable("b/hello", 0o755, HELLO);
    scratch.write("c/hello/is-a-directory", "");
    let [a, b, c] = ["a", "b", "c"].map(|name| scratch.file(name));
    let run = |path: &str| with_path(Some(path), "/").run(["hello"]);
    for first in [&a, &c] {
        let found = format!("hello {b}/hello\n");
        assert_eq!(run(&format!("{first}:{b}")).success(), found);
        fails(&run(&format!("{first}:/no/such")), 126, "hello", "EACCES");
        fails(&run(&format!("/no/such:{first}")), 126, "hello", "EACCES");
    }
}

#[test]
fn a_path_is_not_searched_for() {
    let scratch = Scratch::new("relative");
    let file = scratch.executable("a/hello", 0o755, HELLO);
    let here = scratch.file("a");
    let elsewhere = with_path(Some(&here), "/");
    fails(&elsewhere.run(["./hello"]), 127, "./hello", "ENOENT");
    assert_eq!(elsewhere.run([&file]).success(), format!("hello {file}\n"));
    assert_eq!(with_path(Some("/"), &here).run(["./hello"]).success(), "hello ./hello\n");
    assert_eq!(with_path(Some("/"), &here).run(["../a/hello"]).success(), "hello ../a/hello\n");
}

/// P9
#[test]
fn the_status_tells_what_is_missing_from_what_cannot_be_executed() {
    let scratch = Scratch::new("status");
    let plain = scratch.write("plain", HELLO);
    let lost = scratch.executable("lost", 0o755, "#!/no/such/interpreter\n");
    let folder = scratch.file("");
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        fails(&run.run(["/no/such"]), 127, "/no/such", "ENOENT");
        fails(&run.run([&lost]), 127, &lost, "ENOENT");
        fails(&run.run([&plain]), 126, &plain, "EACCES");
        fails(&run.run([&folder]), 126, &folder, "EACCES");
    }
}

/// P9
#[test]
fn the_cause_is_named_as_the_kernel_gave_it() {
    let scratch = Scratch::new("cause");
    let below = scratch.write("plain", HELLO) + "/x";
    let long = format!("/{}", "x".repeat(5000));
    fails(&standalone().run([&below]), 127, &below, "ENOTDIR");
    fails(&standalone().run([&long]), 127, &long, "ENAMETOOLONG");
}

/// P9
#[test]
fn the_status_does_not_depend_on_who_reads_standard_error() {
    for (user, place) in EVERYWHERE {
        for (command, code) in [("/no/such", 127), ("/etc", 126)] {
            let (reader, closed) = io::pipe().unwrap();
            drop(reader);
            let mut command = Run::new(user, place).command([command]);
            let child = command.stdout(Stdio::null()).stderr(closed).spawn();
            assert_eq!(child.unwrap().wait().unwrap().code(), Some(code), "{user:?} {place:?}");
        }
    }
}

#[test]
fn a_script_without_interpreter_is_run_by_the_shell() {
    let scratch = Scratch::new("script");
    let script = scratch.executable("script", 0o755, "echo \"$0\" \"$#\" \"$@\"\nexit 7\n");
    let here = scratch.path().to_str().unwrap();
    for (user, place) in EVERYWHERE {
        let outcome = Run::new(user, place).run([&script, "-c", "a b", ""]);
        assert_eq!((outcome.code, outcome.stdout), (7, format!("{script} 3 -c a b \n")));
    }
    let outcome = with_path(Some(here), "/").run(["script", "a"]);
    assert_eq!((outcome.code, outcome.stdout), (7, format!("{script} 1 a\n")));
    // By the working directory it has no slash: the shell must not look for it elsewhere.
    let outcome = with_path(Some(""), here).run(["script"]);
    assert_eq!((outcome.code, outcome.stdout), (7, "script 0\n".into()));
}

#[test]
fn a_file_that_is_no_program_fails_as_the_shell_says() {
    let scratch = Scratch::new("garbage");
    let garbage = scratch.executable("garbage", 0o755, b"\x7fELF\x00\x01\x02\xff\n\0\0");
    let outcome = standalone().run([&garbage]);
    assert!([126, 127, 2].contains(&outcome.code), "{outcome:?}");
    assert!(!outcome.stderr.is_empty(), "{outcome:?}");
    let empty = scratch.executable("empty", 0o755, "");
    assert_eq!(standalone().run([&empty]).success(), "");
}

/// P15
#[test]
fn files_that_may_be_executed_and_not_read_work() {
    let scratch = Scratch::new("unreadable");
    let copy = |from: &str, name: &str| {
        let path = scratch.executable(name, 0o111, fs::read(from).unwrap());
        fs::metadata(&path).unwrap();
        path
    };
    let workload = copy("/bin/echo", "echo");
    let own = copy(sbx_init().to_str().unwrap(), "sbx-init");
    for (user, place) in EVERYWHERE {
        assert_eq!(Run::new(user, place).run([&workload, "a"]).success(), "a\n");
        let run = Run::new(user, place).before(["sh", "-c", "shift; exec \"$0\" \"$@\"", &own]);
        assert_eq!(run.sh("echo $$").success(), "2\n", "{user:?} {place:?}");
        assert_eq!(run.run([&workload, "b"]).success(), "b\n", "{user:?} {place:?}");
    }
}

#[test]
fn the_first_argument_is_the_name_as_typed() {
    let show = "tr '\\0' '\\n' </proc/self/cmdline | head -1";
    assert_eq!(standalone().run(["sh", "-c", "echo $0"]).success(), "sh\n");
    assert_eq!(standalone().run(["/bin/sh", "-c", "echo $0"]).success(), "/bin/sh\n");
    assert_eq!(
        standalone().run(["cat", "/proc/self/cmdline"]).success(),
        "cat\0/proc/self/cmdline\0"
    );
    let scratch = Scratch::new("argv0");
    let link = scratch.file("other-name");
    std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
    let outcome = with_path(Some(scratch.path().to_str().unwrap()), "/").run([
        "other-name",
        "-c",
        &format!("PATH=/usr/bin:/bin; {show}; echo $0"),
    ]);
    assert!(outcome.success().ends_with("\nother-name\n"), "{outcome:?}");
}

#[test]
fn a_program_that_is_being_written_is_busy() {
    let scratch = Scratch::new("busy");
    let busy = scratch.executable("busy", 0o777, fs::read("/bin/true").unwrap());
    let run = after(standalone(), &format!("exec 9>>{busy}"));
    fails(&run.clone().options(["--keep-fd", "9"]).run([&busy]), 126, &busy, "ETXTBSY");
    assert_eq!(standalone().run([&busy]).success(), "");
}

#[test]
fn too_long_an_argument_list_is_not_executable() {
    let scratch = Scratch::new("long");
    let fits = scratch.write("fits", "echo\0-n\0".to_owned() + &"a\0".repeat(20_000));
    let long = scratch.write("long", "echo\0-n\0".to_owned() + &"a\0".repeat(2_000_000));
    let one = scratch.write("one", "echo\0-n\0".to_owned() + &"a".repeat(200_000));
    let read = |file: &str| {
        after(standalone(), &format!("exec 9<{file}")).options(["--args", "9"]).run([""; 0])
    };
    assert_eq!(read(&fits).success().len(), 39_999);
    fails(&read(&long), 126, "echo", "E2BIG");
    fails(&read(&one), 126, "echo", "E2BIG");
}

#[test]
fn the_environment_is_unchanged() {
    let environment = [
        "PATH=/usr/bin:/bin",
        "LD_PRELOAD=libc.so.6",
        "LD_LIBRARY_PATH=/no/such",
        "LD_DEBUG_OUTPUT=/dev/null",
        "MALLOC_ARENA_MAX=1",
        "LOCPATH=/no/such",
        "EMPTY=",
        "TWICE=1",
        "=odd",
        "LINES=a\nb",
        "SBX=x",
        "ARGV0=y",
    ];
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before(["env", "-i"]).before(environment);
        let outcome = run.run(["env", "-0"]);
        assert_eq!(outcome.success().split_terminator('\0').collect::<Vec<_>>(), environment);
        assert_eq!(outcome.stderr, "");
        let empty = Run::new(user, place).before(["env", "-i"]).run(["/usr/bin/env"]);
        assert_eq!(empty.success(), "");
    }
}

#[test]
fn the_working_directory_is_kept() {
    for (user, place) in EVERYWHERE {
        let outcome = after(Run::new(user, place), "cd /usr/lib").run(["pwd"]);
        assert_eq!(outcome.success(), "/usr/lib\n", "{user:?} {place:?}");
    }
}

/// U7
#[test]
fn a_deleted_working_directory_is_kept() {
    for (user, place) in EVERYWHERE {
        let scratch = Scratch::new(&format!("deleted-{user:?}-{place:?}"));
        let directory = scratch.path().to_str().unwrap();
        let run = Run::new(user, place).bwrap(["--bind", directory, directory]);
        let run = after(run, &format!("mkdir {directory}/gone; cd {directory}/gone; rmdir $PWD"));
        let outcome = run.run(["readlink", "/proc/self/cwd"]);
        assert!(
            outcome.success().ends_with("/gone (deleted)\n"),
            "{user:?} {place:?}: {outcome:?}"
        );
    }
}

/// U7
#[test]
fn a_working_directory_that_may_not_be_searched_is_kept() {
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        let scratch = Scratch::new(&format!("unsearchable-{place:?}"));
        let directory = scratch.path().to_str().unwrap();
        let run = Run::new(User::Ordinary, place).bwrap(["--bind", directory, directory]);
        let script =
            format!("mkdir {directory}/closed; cd {directory}/closed; chmod 0 {directory}/closed");
        let outcome = after(run, &script).run(["readlink", "/proc/self/cwd"]);
        assert!(outcome.success().ends_with("/closed\n"), "{place:?}: {outcome:?}");
    }
}

#[test]
fn the_file_mode_mask_and_the_priority_are_kept() {
    for (user, place) in EVERYWHERE {
        for mask in ["0000", "0027", "0777"] {
            let run =
                after(Run::new(user, place), &format!("umask {mask}")).before(["nice", "-n", "7"]);
            assert_eq!(
                run.sh("umask; nice").success(),
                format!("{mask}\n7\n"),
                "{user:?} {place:?}"
            );
        }
    }
}

/// U4
#[test]
fn supplementary_groups_are_no_obstacle() {
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        let become_member =
            ["setpriv", "--reuid", "1000", "--regid", "1000", "--groups", "5,20,1000", "--"];
        // bwrap itself is started by the member, so the user is changed in front of all.
        let inner = Run::new(User::Root, place).words(["id", "-u"]);
        let mut command = support::contained();
        command.args(become_member).args(inner);
        let outcome = Outcome::new(command.output().unwrap());
        assert_eq!(outcome.success(), "1000\n", "{place:?}");
    }
}

#[test]
fn a_fixture_can_be_the_command() {
    // A program that is neither a script nor in the PATH, with every default.
    let words = fixture("descriptors");
    let outcome = standalone().run([words.as_os_str(), "list".as_ref()]);
    assert_eq!(outcome.success(), "open 0 1 2\nproc 0 1 2\n");
}
