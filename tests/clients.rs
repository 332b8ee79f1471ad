//! Real clients of a network policy: what is allowed works, what is denied fails at once and says why.
//!
//! The servers are outside, on loopback of the run's own network namespace.

mod support;

use std::path::Path;
use std::process::Command;

use support::programs::{PATH, need};
use support::scratch::Scratch;
use support::{Outcome, Place, Run, User, beside_pod};

/// Serves a directory by HTTP on 127.0.0.1:8000 and, in vain, 127.0.0.2:8000, and starts what follows when
/// both listen.
const SERVE: &str = r#"
import functools, http.server, subprocess, sys, threading

class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

handler = functools.partial(Handler, directory=sys.argv[1])
for address in ["127.0.0.1", "127.0.0.2"]:
    server = http.server.ThreadingHTTPServer((address, 8000), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
sys.exit(subprocess.call(sys.argv[2:]))
"#;

const ALLOWED: &str = "127.0.0.1:8000";

/// Each client by each user; in bubblewrap with the network of outside.
const PLACES: [(User, Place); 3] = [
    (User::Ordinary, Place::Standalone),
    (User::Root, Place::Standalone),
    (User::Ordinary, Place::Bwrap),
];

/// A run in a directory of its own, beside what `before` starts.
fn client(scratch: &Scratch, run: &Run, before: &[&str], command: &[&str]) -> Outcome {
    let directory = scratch.path().to_str().unwrap();
    let run = run.clone().bwrap(["--share-net", "--bind", directory, directory]).before([
        "env",
        "-C",
        directory,
        &format!("PATH={PATH}"),
        &format!("HOME={directory}"),
        "GIT_CONFIG_NOSYSTEM=1",
    ]);
    Outcome::of(beside_pod(before).args(run.words(command)))
}

/// The arguments that serve a directory.
fn serving(scratch: &Scratch) -> [String; 4] {
    let directory = scratch.file("served");
    ["/usr/bin/python3".into(), "-c".into(), SERVE.into(), directory]
}

/// Runs a script with both addresses, `$1` the allowed one. The first must print `hello`, the second
/// fail soon, on a machine that may be busy, and say this.
#[track_caller]
fn reaches(name: &str, programs: &[&str], script: &str, error: &str) {
    need(programs);
    for (user, place) in PLACES {
        let scratch = Scratch::new(&format!("{name}-{user:?}-{place:?}"));
        scratch.write("served/hello", "hello\n");
        let served = serving(&scratch);
        let served: Vec<&str> = served.iter().map(String::as_str).collect();
        let at = Run::new(user, place).options(["--net-allow", ALLOWED]);
        let run =
            |address: &str| client(&scratch, &at, &served, &["sh", "-c", script, "sh", address]);
        assert_eq!(run(ALLOWED).success().trim(), "hello", "{user:?} {place:?}");
        // By a name too, whose first address is denied.
        assert_eq!(run("localhost:8000").success().trim(), "hello", "{user:?} {place:?}");
        let denied = client(
            &scratch,
            &at,
            &served,
            &["timeout", "30", "sh", "-c", script, "sh", "127.0.0.2:8000"],
        );
        assert!(denied.code != 0 && denied.code != 124, "{denied:?}");
        let said = format!("{}{}", denied.stdout, denied.stderr);
        assert!(said.contains(error), "{denied:?}");
    }
}

#[test]
fn curl() {
    reaches(
        "curl",
        &["curl"],
        r#"curl -sS -v "http://$1/hello" 2> err || { cat err; exit 1; }"#,
        "Permission denied",
    );
}

#[test]
fn python_urllib() {
    let script = r#"exec /usr/bin/python3 -c '
import sys, urllib.request
print(urllib.request.urlopen("http://" + sys.argv[1] + "/hello").read().decode())' "$1""#;
    reaches("urllib", &["python3"], script, "[Errno 13]");
}

#[test]
fn python_asyncio() {
    let script = r#"exec /usr/bin/python3 -c '
import asyncio, sys
async def main():
    host, port = sys.argv[1].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /hello HTTP/1.0\r\n\r\n")
    print((await reader.read()).decode().split("\r\n\r\n")[1])
    writer.close()
asyncio.run(main())' "$1""#;
    reaches("asyncio", &["python3"], script, "[Errno 13]");
}

#[test]
fn node_fetch() {
    let script = r#"exec node -e '
fetch("http://" + process.argv[1] + "/hello").then(answer => answer.text()).then(console.log,
  error => { console.error(error.cause.code, error.cause.errors); process.exit(1) })' "$1""#;
    reaches("node", &["node"], script, "EACCES");
}

/// Its sockets are IPv6 for IPv4 addresses too: the destinations are mapped.
#[test]
fn java() {
    let script = r#"cat > Client.java <<- end
	class Client {
	    public static void main(String[] words) throws Exception {
	        new java.net.URL("http://" + words[0] + "/hello").openStream().transferTo(System.out);
	    }
	}
	end
	exec java -XX:-UsePerfData Client.java "$1""#;
    reaches("java", &["java", "javac"], script, "Permission denied");
}

/// Each prints the addresses of `$1`, or how long it took to find none.
const RESOLVERS: &[(&str, &str)] = &[
    (
        "getent",
        "found=$(getent ahosts $1) || { echo nothing soon; exit; }; echo \"$found\" | cut -d ' ' -f 1",
    ),
    (
        "python3",
        r#"exec /usr/bin/python3 -c '
import socket, sys, time
start = time.monotonic()
try:
    for found in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM):
        print(found[4][0])
except socket.gaierror:
    print("nothing", "soon" if time.monotonic() - start < 1 else "late")' "$1""#,
    ),
    (
        "node",
        r#"exec node -e '
const start = performance.now()
require("dns").lookup(process.argv[1], { all: true }, (error, found) => {
  if (error) console.log("nothing", performance.now() - start < 1000 ? "soon" : "late")
  else for (const { address } of found) console.log(address)
})' "$1""#,
    ),
    ("musl", r#"exec "$2" "$1""#),
];

const LOOKUP: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}
int main(int count, char **words) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    double start = now();
    if (getaddrinfo(words[1], "80", &hints, &found))
        return printf("nothing %s\n", now() - start < 1 ? "soon" : "late"), 0;
    for (char text[64]; found; found = found->ai_next) {
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        puts(text);
    }
    return 0;
}"#;

/// Builds a static program with musl's libc.
fn with_musl(scratch: &Scratch, name: &str, program: &str) -> String {
    let source = scratch.write(&format!("{name}.c"), program);
    let built = scratch.file(name);
    let status = Command::new("musl-gcc").args(["-static", "-o", &built, &source]).status();
    assert!(status.unwrap().success());
    built
}

/// D-3, D-7
#[test]
fn every_resolver_finds_exactly_the_pins() {
    need(&["getent", "musl-gcc", "node", "python3"]);
    let scratch = Scratch::new("resolvers");
    let musl = with_musl(&scratch, "lookup", LOOKUP);
    let expected = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"];
    for (user, place) in PLACES {
        let at = Run::new(user, place)
            .options(["--net-allow", "far.test:80", "--pin"])
            .options([format!("far.test={}", expected.join(","))]);
        for (name, script) in RESOLVERS {
            let lookup = |host: &str| {
                let outcome = client(&scratch, &at, &[], &["sh", "-c", script, "sh", host, &musl]);
                let mut found: Vec<_> = outcome.success().lines().map(str::to_owned).collect();
                found.sort();
                found.dedup();
                found
            };
            assert_eq!(lookup("far.test"), expected, "{name} {user:?} {place:?}");
            // A busy machine may need several times.
            let soon = (0..5).any(|_| lookup("other.test") == ["nothing soon"]);
            assert!(soon, "{name} {user:?} {place:?}");
        }
    }
}

/// musl's resolver and its connect, in a static program.
#[test]
fn a_static_program_with_musl() {
    let program = r#"
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int count, char **words) {
    char *port = strchr(words[1], ':'), text[4096];
    *port++ = 0;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    if (getaddrinfo(words[1], port, &hints, &found)) return puts("no such name"), 2;
    for (; found; found = found->ai_next) {
        int fd = socket(found->ai_family, SOCK_STREAM, 0);
        if (connect(fd, found->ai_addr, found->ai_addrlen)) { perror("connect"); continue; }
        write(fd, "GET /hello HTTP/1.0\r\n\r\n", 23);
        ssize_t length = 0, more;
        while ((more = read(fd, text + length, sizeof text - 1 - length)) > 0) length += more;
        text[length] = 0;
        return puts(strstr(text, "\r\n\r\n") + 4), 0;
    }
    return 1;
}"#;
    need(&["musl-gcc"]);
    let scratch = Scratch::new("musl");
    let fetch = with_musl(&scratch, "fetch", program);
    let script = format!(r#"exec {fetch} "$1""#);
    // In bubblewrap the machine is there read-only.
    reaches("musl-run", &["musl-gcc"], &script, "Permission denied");
}

#[test]
fn git_over_http() {
    need(&["git"]);
    for (user, place) in PLACES {
        let scratch = Scratch::new(&format!("git-{user:?}-{place:?}"));
        let prepare = r#"
            cd "$1"; git init -q work; cd work; echo hello > hello; git add hello
            git -c user.name=x -c user.email=x@localhost commit -qm first
            git clone -q --bare . ../served/repository; cd ../served/repository
            git update-server-info"#;
        std::fs::create_dir(scratch.file("served")).unwrap();
        let prepared = Command::new("sh")
            .args(["-ec", prepare, "sh", scratch.path().to_str().unwrap()])
            .env("HOME", scratch.path())
            .status();
        assert!(prepared.unwrap().success());
        let served = serving(&scratch);
        let served: Vec<&str> = served.iter().map(String::as_str).collect();
        let at = Run::new(user, place).options(["--net-allow", ALLOWED]);
        let clone = |address: &str, to: &str| {
            let url = format!("http://{address}/repository");
            client(&scratch, &at, &served, &["timeout", "30", "git", "clone", "-q", &url, to])
        };
        clone(ALLOWED, "copy").success();
        assert_eq!(std::fs::read_to_string(scratch.file("copy/hello")).unwrap(), "hello\n");
        let denied = clone("127.0.0.2:8000", "other");
        assert_eq!(denied.code, 128, "{denied:?}");
        assert!(!Path::new(&scratch.file("other")).exists());
    }
}

/// Many connections, many of them at once; and a server that is inside itself.
#[test]
fn redis_benchmark() {
    need(&["redis-server", "redis-benchmark", "redis-cli"]);
    let script = r#"
        : > log
        redis-server --port 6379 --bind 127.0.0.1 --save '' --daemonize no >> log & server=$!
        tail -f log --pid=$server | grep -q -m 1 'Ready to accept' || { cat log; exit 1; }
        redis-benchmark -h 127.0.0.1 -p 6379 -c 64 -n 2000 -k 0 -t set,get --csv || exit 2
        redis-cli -h 127.0.0.2 -p 6379 ping 2>&1
        redis-cli -h 127.0.0.1 -p 6379 shutdown nosave"#;
    for (user, place) in PLACES {
        let scratch = Scratch::new(&format!("redis-{user:?}-{place:?}"));
        let at = Run::new(user, place).options(["--net-allow", "127.0.0.1:6379"]);
        let outcome = client(&scratch, &at, &[], &["bash", "-c", script]);
        let text = outcome.success();
        assert!(text.contains("\"SET\",") && text.contains("\"GET\","), "{outcome:?}");
        assert!(text.contains("127.0.0.2:6379: Permission denied"), "{outcome:?}");
    }
}
