//! Everyday programs work inside, and leave nothing behind.

mod support;

use std::fs;
use std::process::Stdio;

use support::kernel::{LANDLOCK_SCOPES, TCP_RULES, WaitKillableRecv};
use support::programs::{PATH, need};
use support::scratch::Scratch;
use support::{Outcome, Place, Run, User, beside_pod, contained, sbx_init};

/// Each user, and each way to the namespaces.
const PLACES: [(User, Place); 5] = [
    (User::Root, Place::Standalone),
    (User::Ordinary, Place::Standalone),
    (User::Root, Place::Bwrap),
    (User::Ordinary, Place::Bwrap),
    (User::Ordinary, Place::BwrapSysAdmin),
];

/// A directory to work in, and a run that works there.
struct Workshop {
    scratch: Scratch,
    run: Run,
}

impl Workshop {
    fn new(name: &str, user: User, place: Place) -> Self {
        let scratch = Scratch::new(&format!("{name}-{user:?}-{place:?}"));
        let directory = scratch.path().to_str().unwrap();
        let run = Run::new(user, place).bwrap(["--bind", directory, directory]).before([
            "env",
            "-C",
            directory,
            &format!("PATH={PATH}"),
            &format!("HOME={directory}"),
        ]);
        Self { scratch, run }
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.scratch.write(name, content);
        self
    }

    fn options(mut self, options: &[&str]) -> Self {
        self.run = self.run.options(options);
        self
    }
}

/// Runs the command in a workshop of each place, and expects this output.
#[track_caller]
fn everywhere(name: &str, files: &[(&str, &str)], command: &[&str], expected: &str) {
    for (user, place) in PLACES {
        let workshop = files
            .iter()
            .fold(Workshop::new(name, user, place), |shop, (name, text)| shop.file(name, text));
        let outcome = workshop.run.run(command);
        assert_eq!(outcome.success(), expected, "{user:?} {place:?}: {}", outcome.stderr);
    }
}

const POOL: &str = "
import multiprocessing, sys

def square(n):
    return n * n

if __name__ == '__main__':
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(3) as pool:
        print(sum(pool.map(square, range(100))))
    queue = context.Queue()
    child = context.Process(target=queue.put, args=('from the child',))
    child.start()
    print(queue.get())
    child.join()
    sys.exit(child.exitcode)
";
const POOLED: &str = "328350\nfrom the child\n";

#[test]
fn python_multiprocessing_forks() {
    need(&["python3"]);
    everywhere("fork", &[("pool.py", POOL)], &["python3", "pool.py", "fork"], POOLED);
}

#[test]
fn python_multiprocessing_spawns() {
    need(&["python3"]);
    everywhere("spawn", &[("pool.py", POOL)], &["python3", "pool.py", "spawn"], POOLED);
}

/// N8
#[test]
fn the_python_fork_server_needs_unix_sockets_and_says_so() {
    need(&["python3"]);
    for (user, place) in PLACES {
        let workshop = || Workshop::new("forkserver", user, place).file("pool.py", POOL);
        let command = ["python3", "pool.py", "forkserver"];
        let shop = workshop();
        let refused = shop.run.run(command);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("PermissionError: [Errno 1]"), "{refused:?}");
        drop(shop);
        let shop = workshop().options(&["--allow", "unix"]);
        assert_eq!(shop.run.run(command).success(), POOLED, "{user:?} {place:?}");
    }
}

/// N8
#[test]
fn the_python_manager_needs_unix_sockets_and_says_so() {
    need(&["python3"]);
    let script = "
import multiprocessing
if __name__ == '__main__':
    with multiprocessing.get_context('fork').Manager() as manager:
        shared = manager.dict(a=1)
        print(shared['a'])
";
    for (user, place) in PLACES {
        let workshop = || Workshop::new("manager", user, place).file("manager.py", script);
        let shop = workshop();
        let refused = shop.run.run(["python3", "manager.py"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("PermissionError: [Errno 1]"), "{refused:?}");
        drop(shop);
        let shop = workshop().options(&["--allow", "unix"]);
        assert_eq!(shop.run.run(["python3", "manager.py"]).success(), "1\n", "{user:?} {place:?}");
    }
}

#[test]
fn python_asyncio_subprocesses_and_threads_work() {
    need(&["python3"]);
    let script = "
import asyncio, concurrent.futures, socket, subprocess, threading

async def child(n):
    process = await asyncio.create_subprocess_exec('sh', '-c', f'read x; echo $x {n}; exit {n}',
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate(b'line\\n')
    return output.decode().strip(), process.returncode

async def main():
    print(await asyncio.gather(*[child(n) for n in range(4)]))
    server = await asyncio.start_server(lambda r, w: (w.write(b'served'), w.close()), '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    print(await reader.read())
    writer.close()
    server.close()
    print(await asyncio.get_running_loop().run_in_executor(None, lambda: 'executor'))

asyncio.run(main())
print(subprocess.run('echo shell | tr a-z A-Z', shell=True, capture_output=True).stdout)
with concurrent.futures.ThreadPoolExecutor(8) as threads:
    print(sum(threads.map(lambda n: n, range(100))))
left, right = socket.socketpair()
thread = threading.Thread(target=left.send, args=(b'pair',))
thread.start()
print(right.recv(9))
thread.join()
";
    let expected = "[('line 0', 0), ('line 1', 1), ('line 2', 2), ('line 3', 3)]\n\
        b'served'\nexecutor\nb'SHELL\\n'\n4950\nb'pair'\n";
    everywhere("asyncio", &[("script.py", script)], &["python3", "script.py"], expected);
}

#[test]
fn node_processes_workers_and_files_work() {
    need(&["node"]);
    let script = "
const { spawn, exec, execFileSync, fork } = require('child_process');
const { Worker, isMainThread, parentPort } = require('worker_threads');
const fs = require('fs');
if (!isMainThread) {
    parentPort.postMessage('worker');
} else if (process.send) {
    process.once('message', text => process.send('forked ' + text, () => process.disconnect()));
} else {
    (async () => {
        const child = spawn('cat');
        child.stdin.end('spawned');
        for await (const data of child.stdout) console.log(String(data));
        console.log(await new Promise(done => exec('echo $((6 * 7))', (_, out) => done(out.trim()))));
        console.log(String(execFileSync('echo', ['sync'])).trim());
        console.log(await new Promise(done => new Worker(__filename).on('message', done)));
        const other = fork(__filename);
        other.send('message');
        console.log(await new Promise(done => other.once('message', done)));
        await fs.promises.mkdir('a/b', { recursive: true });
        await Promise.all([1, 2, 3].map(n => fs.promises.writeFile(`a/b/${n}`, String(n))));
        console.log((await fs.promises.readdir('a/b')).join(), fs.readFileSync('a/b/2', 'utf8'));
    })();
}
";
    let expected = "spawned\n42\nsync\nworker\nforked message\n1,2,3 2\n";
    everywhere("node", &[("script.js", script)], &["node", "script.js"], expected);
}

#[test]
fn a_node_server_on_loopback_can_be_reached() {
    need(&["node"]);
    let script = "
const http = require('http');
const server = http.createServer((request, response) => response.end('got ' + request.url));
server.listen(0, '127.0.0.1', async () => {
    const answer = await fetch(`http://127.0.0.1:${server.address().port}/page`);
    console.log(answer.status, await answer.text());
    server.closeAllConnections();
    server.close();
});
";
    everywhere("http", &[("script.js", script)], &["node", "script.js"], "200 got /page\n");
}

/// A server and a client, each of them what a rule allows.
#[test]
fn servers_listen_where_a_rule_says() {
    need(&["node", "python3"]);
    let python = "
import functools, http.server, threading, urllib.request
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='.')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 50123), handler)
threading.Thread(target=server.serve_forever).start()
print(urllib.request.urlopen('http://127.0.0.1:50123/page').read().decode())
server.shutdown()
";
    let node = "
const server = require('http').createServer((request, response) => response.end('text'));
server.listen(50123, '127.0.0.1', async () => {
    const answer = await fetch('http://127.0.0.1:50123/page');
    console.log(await answer.text());
    server.closeAllConnections();
    server.close();
});
server.on('error', error => console.log(error.code));
";
    for (user, place) in PLACES.into_iter().filter(|(_, place)| *place != Place::Standalone) {
        for (file, content, command) in
            [("script.py", python, "python3"), ("script.js", node, "node")]
        {
            let shop = Workshop::new("rule", user, place).file(file, content).file("page", "text");
            let rules = ["--bind-tcp", "50123", "--connect-tcp", "50123"];
            let outcome = shop.options(&rules).run.run([command, file]);
            if outcome.refused_without(TCP_RULES) {
                continue;
            }
            assert_eq!(outcome.success(), "text\n", "{user:?} {place:?} {file}: {outcome:?}");
            let shop = Workshop::new("other", user, place).file(file, content).file("page", "text");
            let outcome = shop.options(&["--bind-tcp", "50124"]).run.run([command, file]);
            assert!(!outcome.stdout.contains("text"), "{outcome:?}");
            let all = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(all.contains("EACCES") || all.contains("PermissionError"), "{outcome:?}");
        }
    }
}

#[test]
fn the_status_lines_are_json() {
    need(&["python3"]);
    const READ: &str = "import json,sys
for line in sys.stdin:
    print(line[-1:] == '\\n', sorted(json.loads(line)))";
    let run = Run::new(User::Ordinary, Place::Standalone)
        .lacking(libc::SYS_mount, libc::EPERM)
        .lacking(libc::SYS_landlock_create_ruleset, libc::ENOSYS);
    let namespaces = Run::new(User::Ordinary, Place::Standalone);
    for (run, keys) in [
        (namespaces, "['isolation', 'landlock', 'missing']"),
        (run.options(["--isolation", "auto"]), ""),
        (
            Run::new(User::Ordinary, Place::Standalone)
                .lacking(libc::SYS_mount, libc::EPERM)
                .options(["--isolation", "auto"]),
            "['isolation', 'landlock', 'missing', 'refused']",
        ),
    ] {
        if keys.contains("refused") && run.refused_without(LANDLOCK_SCOPES) {
            continue;
        }
        let pipe = r#"exec 3>&1 >/dev/null; "$@""#;
        let run = run.options(["--status-fd", "3", "--best-effort"]);
        let run = run.before(["sh", "-c", pipe, "sh"]);
        let mut command = contained();
        command.args(["sh", "-c", r#"read=$1; shift; "$@" | python3 -c "$read""#, "sh", READ]);
        let outcome = Outcome::new(command.args(run.words(["true"])).output().unwrap());
        let expected = match keys {
            "" => String::new(),
            keys => format!("True {keys}\nTrue ['child-pid']\nTrue ['exit-code']\n"),
        };
        assert_eq!(outcome.success(), expected, "{outcome:?}");
    }
}

#[test]
fn git_works_on_a_local_repository() {
    need(&["git"]);
    let script = "set -e
        git config --global user.name Nobody
        git config --global user.email nobody@localhost
        git init -q -b main one && cd one
        for n in 1 2 3; do echo $n >$n && git add . && git commit -q -m \"number $n\"; done
        git checkout -q -b side && git mv 1 one && git commit -q -m side
        git checkout -q main && git merge -q --no-ff -m merged side
        git gc -q --aggressive && git fsck --strict 2>/dev/null
        cd .. && git clone -q --no-local one two && cd two
        echo 4 >4 && git add 4 && git commit -q -m 'number 4' && git push -q origin HEAD:back
        git -C ../one log --format=%s back | head -2; git ls-files | tr '\\n' ' '; git status -s";
    everywhere("git", &[], &["sh", "-c", script], "number 4\nmerged\n2 3 4 one ");
}

const MAKEFILE: &str = "
objects = main.o one.o two.o three.o
all: program
program: $(objects)
\t$(CC) -o $@ $^
%.o: %.c
\t$(CC) -g -O0 -c -o $@ $<
one.c two.c three.c: %.c: Makefile
\techo 'int $*(void) { return sizeof \"$*\" - 1; }' >$@
";
const MAIN: &str = "
#include <stdio.h>
int one(void), two(void), three(void);
int main(void) {
    int answer = one() + two() + three();
    printf(\"%d letters\\n\", answer);
    return 0;
}
";

#[test]
fn make_and_the_c_compiler_build_a_program() {
    need(&["make", "gcc"]);
    let files = [("Makefile", MAKEFILE), ("main.c", MAIN)];
    let script = "make -s -j4 CC=gcc && ./program";
    everywhere("make", &files, &["sh", "-c", script], "11 letters\n");
}

/// A13
#[test]
fn the_debugger_stops_at_a_breakpoint() {
    need(&["make", "gcc", "gdb"]);
    let script = "make -s CC=gcc && gdb -q -nx -batch -ex 'set debuginfod enabled off' \
        -ex 'break printf' -ex run -ex up -ex 'print answer * 100' -ex continue program 2>&1 </dev/null";
    for (user, place) in PLACES {
        let shop =
            Workshop::new("gdb", user, place).file("Makefile", MAKEFILE).file("main.c", MAIN);
        let outcome = shop.run.sh(script);
        let text = outcome.success();
        assert!(text.contains("$1 = 1100\n"), "{user:?} {place:?}: {text}");
        assert!(text.contains("exited normally"), "{text}");
        assert!(!text.to_lowercase().contains("randomization"), "{text}");
        // The same is not to be had with the group that takes it away.
        let refused = shop.options(&["--deny", "trace"]);
        let outcome = refused.run.sh(script);
        assert!(!outcome.stdout.contains("$1 = 1100"), "{outcome:?}");
    }
}

#[test]
fn a_command_and_its_children_can_be_traced() {
    need(&["strace"]);
    let script = "strace -f -qq -e trace=execve -o trace sh -c 'true | /bin/echo traced; :' &&
        grep -c 'execve(\"/bin/echo\"' trace";
    everywhere("strace", &[], &["sh", "-c", script], "traced\n1\n");
}

#[test]
fn shells_can_do_all_they_do() {
    need(&["bash"]);
    let script = r#"
        set -m
        printf '%s\n' b a c | sort | tr '\n' ' '; echo "${PIPESTATUS[*]}"
        diff <(echo same) <(echo same) && echo equal
        tee >(tr a-z A-Z >upper; echo >done) <<<here >/dev/null; until test -e done; do :; done; cat upper
        mkfifo pipe; cat <pipe & echo through >pipe; wait $!
        sleep 100 & job=$!
        kill -STOP $job; wait $job; echo "stopped $(($? - 128))"; jobs -s | grep -c Stopped
        kill -CONT $job; kill $job
        while wait $job; status=$?; test $status = 147; do :; done; echo "ended $status"
        (exit 3) & wait $!; echo "status $?"
        trap 'echo trapped' USR1; kill -USR1 $$
        coproc cat; echo co >&${COPROC[1]}; read -u ${COPROC[0]} line; echo $line; kill %cat
        read -t 0.01 </dev/zero; echo $((2**40)) ${#PWD} >/dev/null; ulimit -c 0; echo end
    "#;
    let expected =
        "a b c 0 0 0\nequal\nHERE\nthrough\nstopped 19\n1\nended 143\nstatus 3\ntrapped\nco\nend\n";
    everywhere("bash", &[], &["bash", "-c", script], expected);
}

#[test]
fn timeout_nohup_and_parallel_xargs_work() {
    need(&["timeout", "nohup", "xargs"]);
    let script = "timeout 0.1 sleep 100; echo $?
        timeout -s KILL 0.1 sleep 100 2>/dev/null; echo $?
        timeout 100 sh -c 'exit 5'; echo $?
        nohup sh -c 'kill -HUP $$; echo survived' 2>/dev/null
        seq 1 100 | xargs -P8 -n3 sh -c 'echo $#' sh | sort | uniq -c | tr -s ' '";
    let expected = "124\n137\n5\nsurvived\n 1 1\n 33 3\n";
    everywhere("tools", &[], &["sh", "-c", script], expected);
}

/// P13
#[test]
fn thousands_of_short_lived_children_are_no_burden() {
    for (user, place) in [(User::Root, Place::Standalone), (User::Ordinary, Place::Bwrap)] {
        // The second half are orphans. Only this shell and the init are left in the end.
        let script = "seq 1 2000 | xargs -P4 -n1 true && seq 1 4 | xargs -P4 -n1 sh -c '
            i=0; while test $i -lt 500; do ( (:) & ); i=$((i + 1)); done'; echo $?
            until set -- /proc/[0-9]*; test $# = 2; do :; done; echo alone";
        assert_eq!(Run::new(user, place).sh(script).success(), "0\nalone\n", "{user:?} {place:?}");
    }
}

#[test]
fn many_sandboxes_run_at_once() {
    for (user, place) in [(User::Root, Place::Standalone), (User::Ordinary, Place::Bwrap)] {
        let run = Run::new(user, place);
        let started: Vec<_> = (0..20)
            .map(|n| {
                // All of them wait until all have been started.
                let mut command =
                    run.command(["sh", "-c", "read go; echo $$ $go; exit $0", &n.to_string()]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        for (n, mut child) in started.into_iter().enumerate() {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
            let outcome = Outcome::new(child.wait_with_output().unwrap());
            assert_eq!((outcome.code, outcome.stdout), (n as i32, "2 go\n".into()));
        }
    }
}

/// P12
#[test]
fn sandboxes_in_sequence_leave_nothing_behind() {
    let scratch = Scratch::new("sequence");
    fs::create_dir(scratch.file("work")).unwrap();
    let script = format!(
        "cd {}/work
        state() {{ set -- /proc/[0-9]*; echo $#; cat /proc/self/mountinfo; }}
        state >../before
        i=0; while test $i -lt 200; do
            \"$@\" sh -c 'sleep 100 & setsid sleep 100 & mount -t tmpfs x /mnt 2>/dev/null; exit 3'
            test $? = 3 || exit 1
            i=$((i + 1))
        done
        state >../after; cmp ../before ../after && ls -A && echo clean",
        scratch.path().display()
    );
    for user in [User::Root, User::Ordinary] {
        let mut command = contained();
        let output = command
            .args(support::become_user(user))
            .args(["sh", "-c", &script, "sh"])
            .arg(sbx_init())
            .output();
        assert_eq!(Outcome::new(output.unwrap()).success(), "clean\n", "{user:?}");
        for name in ["before", "after"] {
            fs::remove_file(scratch.file(name)).unwrap();
        }
    }
}

const NODE: &str = "
const dgram = require('dgram'), dns = require('dns');
const echo = dgram.createSocket('udp4');
echo.on('message', (text, from) => { console.log(`${text} ${from.address}:${from.port}`); echo.close(); });
echo.send('hello', 5000, '127.0.0.1');
const denied = dgram.createSocket('udp4');
denied.send('hello', 5001, '127.0.0.1', error => { console.log(error.code); denied.close(); });
const resolver = new dns.Resolver();
resolver.setServers(['127.0.0.1']);
resolver.resolve4('a.example', (error, found) => console.log(error || found[0]));
";

#[test]
fn node_sends_datagrams_and_asks_a_name_server() {
    need(&["node"]);
    let allow = ["udp://127.0.0.1:53", "udp://127.0.0.1:5000"];
    let workshop = Workshop::new("datagrams", User::Ordinary, Place::Standalone);
    let run = allow.iter().fold(workshop.run, |run, to| run.options(["--net-allow", to]));
    if run.refused_without(WaitKillableRecv) {
        return;
    }
    let outcome = Outcome::of(&mut beside_pod(run.words(["node", "-e", NODE])));
    let mut lines: Vec<_> = outcome.success().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["192.0.2.1", "EACCES", "hello 127.0.0.1:5000"], "{outcome:?}");
}
