//! The program that the tests run in containers: one static binary that does what its arguments say.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn _exit(code: i32) -> !;
    fn kill(pid: i32, number: i32) -> i32;
    fn syscall(number: i64, ...) -> i64;
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn ioctl(fd: i32, request: u64, ...) -> i32;
}

const SIGTERM: i32 = 15;

extern "C" fn on_term(_: i32) {
    unsafe { _exit(42) }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["exit", code] => std::process::exit(code.parse().unwrap()),
        ["print", text] => println!("{text}"),
        ["warn", text] => eprintln!("{text}"),
        ["say-and-exit", text, code] => {
            print!("{text}");
            std::io::stdout().flush().unwrap();
            std::process::exit(code.parse().unwrap())
        }
        // Ends with 42 when asked to.
        ["polite"] => {
            unsafe { signal(SIGTERM, on_term as *const () as usize) };
            println!("ready");
            forever()
        }
        // Without a handler the kernel keeps the signal from a first process.
        ["deaf"] => {
            println!("ready");
            forever()
        }
        ["stubborn"] => {
            unsafe { signal(SIGTERM, 1) };
            println!("ready");
            forever()
        }
        ["shot"] => unsafe {
            // As PID 1 only a child can be shot: its parent takes over the code.
            let status = std::process::Command::new("/proc/self/exe").arg("shoot").status().unwrap();
            use std::os::unix::process::ExitStatusExt;
            _exit(128 + status.signal().unwrap_or(0))
        },
        ["shoot"] => unsafe {
            kill(std::process::id().cast_signed(), 9);
        },
        ["eat", megabytes] => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            for _ in 0..megabytes.parse::<usize>().unwrap() {
                eaten.push(vec![1; 1 << 20]);
            }
            println!("ate {}", eaten.len());
        }
        ["flood", lines] => {
            let line = format!("{}\n", "f".repeat(200));
            let mut out = std::io::stdout().lock();
            for _ in 0..lines.parse::<usize>().unwrap() {
                out.write_all(line.as_bytes()).unwrap();
            }
        }
        ["count"] => {
            let mut number = 0u64;
            loop {
                number += 1;
                fs::write("/count", number.to_string()).unwrap();
                sleep(Duration::from_millis(2));
            }
        }
        ["serve", port] => serve(port.parse().unwrap()),
        ["listen", port] => {
            let bound = TcpListener::bind(("127.0.0.1", port.parse().unwrap()));
            print!("{}", bound.map_or_else(|e| e.to_string(), |_| "bound".to_owned()));
        }
        ["ping"] => {
            use std::os::fd::FromRawFd;
            // Of IPv4, for datagrams, of ICMP (icmp(7)): no right is needed for it, but a group of the setting's range.
            let fd = unsafe { socket(2, 2, 1) };
            if fd < 0 {
                print!("{}", std::io::Error::last_os_error());
                return;
            }
            let icmp = unsafe { std::net::UdpSocket::from_raw_fd(fd) };
            icmp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // An echo request; identifier and checksum are the kernel's.
            icmp.send_to(&[8, 0, 0, 0, 0, 0, 0, 1], "127.0.0.1:0").unwrap();
            let mut reply = [0; 64];
            icmp.recv(&mut reply).unwrap();
            print!("{}", if reply[0] == 0 { "answered" } else { "something else" });
        }
        ["get", port] => {
            let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            print!("{answer}");
        }
        ["cat", path] => print!("{}", fs::read_to_string(path).unwrap_or_else(|e| format!("error: {e}"))),
        ["write", path, text] => fs::write(path, text).unwrap(),
        ["where"] => print!("{}", std::env::current_dir().unwrap().display()),
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["list", path] => {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names.iter().for_each(|name| println!("{}", name.display()));
        }
        ["pass"] => {
            let (mut from, mut to) = (std::io::stdin().lock(), std::io::stdout().lock());
            std::io::copy(&mut from, &mut to).unwrap();
        }
        ["terminal"] => {
            let mut size = [0u16; 4];
            let is_one = unsafe { ioctl(0, 0x5413, size.as_mut_ptr()) } == 0;
            let name = fs::read_link("/proc/self/fd/0").unwrap();
            let own = fs::File::open("/dev/tty").is_ok();
            println!("{is_one} {}x{} {} {own}", size[1], size[0], name.display());
        }
        ["append", path, text] => {
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        ["add", path, text] => {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        ["remove", path] => fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)).unwrap(),
        ["mkdir", path] => fs::create_dir_all(path).unwrap(),
        ["owner", path] => {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::symlink_metadata(path).unwrap();
            print!("{} {} {:o}", meta.uid(), meta.gid(), meta.mode() & 0o7777);
        }
        ["give", path, uid] => std::os::unix::fs::chown(path, Some(uid.parse().unwrap()), Some(1)).unwrap(),
        ["rename", from, to] => fs::rename(from, to).unwrap(),
        ["copy-and-run", path] => {
            fs::copy("/proc/self/exe", path).unwrap();
            let run = std::process::Command::new(path).args(["print", "it runs"]).output();
            print!("{}", run.map_or_else(|e| e.to_string(), |run| String::from_utf8(run.stdout).unwrap()));
        }
        ["link", to, path] => std::os::unix::fs::symlink(to, path).unwrap(),
        ["connect", path] => {
            std::os::unix::net::UnixStream::connect(path).unwrap();
            print!("connected");
        }
        ["open", path, how] => {
            fs::OpenOptions::new().read(how.contains('r')).write(how.contains('w')).open(path).unwrap();
        }
        // Leaves a child of a child behind that ends a moment later.
        ["orphan"] => {
            let mut child = std::process::Command::new("/proc/self/exe").arg("leave").spawn().unwrap();
            child.wait().unwrap();
        }
        ["leave"] => {
            std::process::Command::new("/proc/self/exe").args(["exit", "0"]).spawn().unwrap();
        }
        ["zombies"] => {
            let states = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z'))
            });
            print!("{}", states.filter(|zombie| *zombie).count());
        }
        // Several of the above, one after another.
        ["all", ..] => {
            for part in arguments[1..].split(|word| word == ";") {
                let status = std::process::Command::new("/proc/self/exe").args(part).status().unwrap();
                if !status.success() {
                    std::process::exit(status.code().unwrap_or(1));
                }
            }
        }
        ["overwrite", millis] => overwrite(millis.parse().unwrap()),
        ["peek", millis] => peek(millis.parse().unwrap()),
        ["disk", path, major, minor] => disk(path, major.parse().unwrap(), minor.parse().unwrap()),
        ["doors"] => doors(),
        ["calls"] => calls(),
        ["sleep"] => forever(),
        ref other => panic!("unknown arguments {other:?}"),
    }
}

fn forever() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

fn serve(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
}

/// What the kernel says to calls that a container must not make (x86-64 numbers), and to a few that it may.
fn calls() {
    std::thread::spawn(|| println!("thread fine")).join().unwrap();
    let zero = 0usize;
    let user_namespace = 0x1000_0000usize;
    let calls: [(&str, i64, [usize; 5]); 15] = [
        ("getpid", 39, [zero; 5]),
        ("mount", 165, [zero; 5]),
        ("umount2", 166, [zero; 5]),
        ("unshare", 272, [user_namespace, 0, 0, 0, 0]),
        ("clone-user", 56, [user_namespace | 17, 0, 0, 0, 0]),
        ("clone3", 435, [zero; 5]),
        ("setns", 308, [zero; 5]),
        ("keyctl", 250, [zero; 5]),
        ("bpf", 321, [zero; 5]),
        ("io_uring_setup", 425, [zero; 5]),
        ("init_module", 175, [zero; 5]),
        ("vsock", 41, [40, 1, 0, 0, 0]),
        // The kernel reads the low 32 bits only.
        ("vsock-in-disguise", 41, [40 | 1 << 32, 1, 0, 0, 0]),
        ("udp", 41, [2, 2, 0, 0, 0]),
        ("netlink", 41, [16, 3, 0, 0, 0]),
    ];
    for (name, number, a) in calls {
        let answer = unsafe { syscall(number, a[0], a[1], a[2], a[3], a[4]) };
        if name == "clone-user" && answer == 0 {
            unsafe { _exit(0) }
        }
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{name} {}", if answer >= 0 { 0 } else { error });
    }
}

/// Whether a process is there for a moment only, and runs something else than this program.
fn strangers() -> Vec<std::path::PathBuf> {
    let own = fs::metadata("/proc/self/exe").map(|meta| std::os::unix::fs::MetadataExt::ino(&meta)).unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let processes = all.filter(|path| path.file_name().is_some_and(|n| n.to_str().is_some_and(|n| n.parse::<u32>().is_ok())));
    let other = |path: &std::path::PathBuf| {
        fs::metadata(path.join("exe")).map_or(true, |meta| std::os::unix::fs::MetadataExt::ino(&meta) != own)
    };
    processes.filter(other).collect()
}

/// Holds on to every program that runs here and is not this one, and tries to write to it, also when it has ended.
fn overwrite(millis: u64) {
    let until = std::time::Instant::now() + Duration::from_millis(millis);
    let mut held: Vec<fs::File> = Vec::new();
    let (mut tried, mut wrote) = (0, 0);
    while std::time::Instant::now() < until {
        for process in strangers() {
            tried += 1;
            let exe = process.join("exe");
            if fs::OpenOptions::new().write(true).open(&exe).and_then(|mut f| f.write_all(b"owned")).is_ok() {
                wrote += 1;
            }
            if held.len() < 64 {
                held.extend(fs::File::open(&exe).ok());
            }
        }
        for file in &held {
            use std::os::fd::AsRawFd;
            tried += 1;
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            if fs::OpenOptions::new().write(true).open(again).and_then(|mut f| f.write_all(b"owned")).is_ok() {
                wrote += 1;
            }
        }
    }
    println!("wrote {wrote} of {tried}");
}

/// Tries to look into every process that runs another program: its memory, descriptors, root, and by tracing it.
fn peek(millis: u64) {
    let until = std::time::Instant::now() + Duration::from_millis(millis);
    let mut found = std::collections::BTreeSet::new();
    while std::time::Instant::now() < until {
        for process in strangers() {
            let before = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let mut open = Vec::new();
            if fs::File::open(process.join("mem")).is_ok() {
                open.push("mem");
            }
            if fs::read(process.join("environ")).is_ok_and(|text| !text.is_empty()) {
                open.push("environ");
            }
            for name in ["root", "cwd", "ns/mnt", "fd/0", "fd/3"] {
                if fs::read_link(process.join(name)).is_ok() {
                    open.push(name);
                }
            }
            let pid: i64 = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
            // PTRACE_SEIZE
            if unsafe { syscall(101, 0x4206usize, pid, 0usize, 0usize) } == 0 {
                open.push("ptrace");
            }
            // It may have become this program, or ended, while it was looked at.
            let after = fs::read_to_string(process.join("comm")).unwrap_or_default();
            if !open.is_empty() && before == after && before != "probe\n" && !before.is_empty() {
                found.insert(format!("{} {open:?}", before.trim()));
            }
        }
    }
    found.iter().for_each(|line| println!("{line}"));
}

/// Makes a node for a disk and opens it.
fn disk(path: &str, major: u64, minor: u64) {
    let number = (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12);
    let name = std::ffi::CString::new(path).unwrap();
    let made = unsafe { syscall(133, name.as_ptr(), 0o060666usize, number) } == 0;
    let opened = fs::File::open(path).is_ok();
    print!("{}", if opened { "open" } else { "closed" });
    if made {
        fs::remove_file(path).unwrap();
    }
}

/// Calls by which others have got out, or reached the machine.
fn doors() {
    let say = |name: &str, open: bool| println!("{name} {}", if open { "open" } else { "shut" });
    let zero = 0usize;
    for (name, number, a) in [
        ("keyctl", 250i64, [zero; 3]),
        ("add_key", 248, [zero; 3]),
        ("bpf", 321, [zero; 3]),
        ("userfaultfd", 323, [zero; 3]),
        ("perf_event_open", 298, [zero; 3]),
        ("open_by_handle_at", 304, [zero; 3]),
        ("io_uring_setup", 425, [zero; 3]),
        ("open_tree", 428, [zero; 3]),
        ("fsopen", 430, [zero; 3]),
        ("mount_setattr", 442, [zero; 3]),
        ("kexec_load", 246, [zero; 3]),
        ("setns", 308, [zero; 3]),
        ("vsock", 41, [40, 1, 0]),
    ] {
        let answer = unsafe { syscall(number, a[0], a[1], a[2]) };
        let error = std::io::Error::last_os_error().raw_os_error();
        // Anything but EPERM and ENOSYS means that the kernel has looked at it.
        say(name, answer >= 0 || !matches!(error, Some(1 | 38)));
    }
    for (name, path) in [
        ("core_pattern", "/proc/sys/kernel/core_pattern"),
        ("sysrq", "/proc/sysrq-trigger"),
        ("uevent_helper", "/sys/kernel/uevent_helper"),
        ("release_agent", "/sys/fs/cgroup/memory/release_agent"),
        ("cgroup", "/sys/fs/cgroup/pids/cgroup.procs"),
    ] {
        say(name, fs::OpenOptions::new().write(true).open(path).is_ok());
    }
    for (name, path) in [("kcore", "/proc/kcore"), ("keys", "/proc/keys"), ("timer_list", "/proc/timer_list")] {
        say(name, fs::read_to_string(path).is_ok_and(|text| !text.is_empty()));
    }
    #[cfg(target_arch = "x86_64")]
    say("vsock-by-32-bit-call", old_socket(40));
}

/// A socket by the call of 32-bit programs, whose arguments lie in memory, where no filter can look.
#[cfg(target_arch = "x86_64")]
fn old_socket(family: u32) -> bool {
    // Memory that has a 32-bit address: MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT.
    let memory = unsafe { syscall(9, 0usize, 4096usize, 3usize, 0x62usize, usize::MAX, 0usize) };
    if memory < 0 {
        return false;
    }
    unsafe { std::ptr::copy_nonoverlapping([family, 1, 0].as_ptr(), memory as *mut u32, 3) };
    let mut answer: i64 = 102;
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov ebx, 1",
            "int 0x80",
            "pop rbx",
            inout("rax") answer,
            in("rcx") memory,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    answer as i32 >= 0
}
