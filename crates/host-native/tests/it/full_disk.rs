//! A disk that is really full: posts are refused, nothing is lost, and all goes on when there is room.
//!
//! The data directory is a small file system of its own, in a mount namespace that only these
//! processes see, or one that the surroundings name.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use convene_testing::{
    client::{PATIENCE, Person},
    process::{Convene, Launch},
};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;
/// The size of the disk, and what must be free on it.
const DISK: usize = 96 * MIB;
const RESERVE: usize = 24 * MIB;

/// Names an empty folder on a small file system of its own, for machines on which nobody may mount one.
const GIVEN: &str = "CONVENE_TEST_SMALL_DISK";

/// A small disk; what was mounted is gone when dropped.
struct SmallDisk {
    dir: PathBuf,
    /// `None` for one that is mounted for everybody.
    namespace: Option<Namespace>,
}

/// Where only some processes see the disk.
struct Namespace {
    /// A process that keeps it.
    holder: Child,
    user: &'static str,
}

impl SmallDisk {
    /// The disk that the surroundings name, or one that is mounted at `dir`.
    ///
    /// # Panics
    /// Where there is neither: a test that is left out would look like one that passed.
    fn open(dir: &Path) -> Self {
        if let Some(given) = std::env::var_os(GIVEN).filter(|given| !given.is_empty()) {
            return Self::given(Path::new(&given));
        }
        fs::create_dir_all(dir).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={DISK},mode=700 tmpfs '{}' && echo mounted && exec sleep 600",
            dir.display()
        );
        let mut problems = String::new();
        for (unshare, user) in [("-m", ""), ("-Urm", "-U --preserve-credentials")] {
            let holder = Command::new("unshare")
                .args([unshare, "sh", "-c", &script])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut holder = match holder {
                Ok(holder) => holder,
                Err(error) => {
                    problems += &format!("\n  unshare {unshare}: {error}");
                    continue;
                }
            };
            let mut said = String::new();
            BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
            if said.trim() == "mounted" {
                let namespace = Some(Namespace { holder, user });
                return Self { dir: dir.to_owned(), namespace };
            }
            let output = holder.wait_with_output().unwrap();
            let why = String::from_utf8_lossy(&output.stderr);
            problems += &format!("\n  unshare {unshare}: {}", why.trim());
        }
        panic!(
            "A full disk needs a small file system, and none can be mounted here:{problems}\n\
             Run the test as root, or allow user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1, or \
             kernel.apparmor_restrict_unprivileged_userns=0),\n\
             or mount one of {} MiB and name it in {GIVEN} \
             (a container: --tmpfs /small-disk:size={DISK} -e {GIVEN}=/small-disk).",
            DISK / MIB
        );
    }

    /// A folder of its own in the one that was named, so that nothing but what this test made is ever removed.
    fn given(given: &Path) -> Self {
        let there = fs::read_dir(given)
            .unwrap_or_else(|error| panic!("{GIVEN} names {}: {error}", given.display()));
        // What an ext4 file system brings along is no one's.
        let there = there.map(|entry| entry.unwrap().file_name());
        let there: Vec<_> = there.filter(|name| name != "lost+found").collect();
        assert!(there.is_empty(), "{GIVEN} names a folder that is not empty: {there:?}");
        let dir = given.join("full-disk");
        fs::create_dir(&dir).unwrap();
        let disk = Self { dir, namespace: None };
        let free = disk.free();
        let fits = (2 * RESERVE..=2 * DISK).contains(&free);
        assert!(fits, "{GIVEN} names a disk with {free} bytes free; about {DISK} are wanted");
        disk
    }

    /// A program that runs `convene` where the disk is.
    fn convene(&self, beside: &Path) -> Launch {
        let binary = env!("CARGO_BIN_EXE_convene");
        let program = match &self.namespace {
            None => PathBuf::from(binary),
            Some(Namespace { holder, user }) => {
                let script = beside.join("convene-on-a-small-disk");
                let holder = holder.id();
                let text =
                    format!("#!/bin/sh\nexec nsenter -t {holder} {user} -m -- '{binary}' \"$@\"\n");
                fs::write(&script, text).unwrap();
                fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
                script
            }
        };
        Launch::new(program, &self.dir)
            .env("CONVENE_CONTROLLERS__DISK_RESERVE_BYTES", RESERVE.to_string())
    }

    /// A path on the disk, as it is seen from outside.
    fn path(&self, name: &str) -> PathBuf {
        match &self.namespace {
            None => self.dir.join(name),
            Some(Namespace { holder, .. }) => {
                let dir = self.dir.strip_prefix("/").unwrap();
                Path::new(&format!("/proc/{}/root", holder.id())).join(dir).join(name)
            }
        }
    }

    /// Fills it until at most so many bytes are free.
    fn fill(&self, name: &str, leave: usize) {
        let mut file = File::create(self.path(name)).unwrap();
        let mut chunk = vec![7; MIB];
        loop {
            let free = self.free();
            if free <= leave {
                return;
            }
            chunk.truncate((free - leave).min(MIB));
            if file.write_all(&chunk).is_err() {
                return;
            }
        }
    }

    fn free(&self) -> usize {
        let output = Command::new("stat")
            .args(["--file-system", "--format=%a %S"])
            .arg(self.path("."))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (blocks, size) = text.trim().split_once(' ').unwrap();
        blocks.parse::<usize>().unwrap() * size.parse::<usize>().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.namespace {
            Some(Namespace { holder, .. }) => {
                let _ = holder.kill();
                let _ = holder.wait();
            }
            // The folder that was named is to be empty for the next time.
            None => drop(fs::remove_dir_all(&self.dir)),
        }
    }
}

/// Somebody who keeps count of what was acknowledged.
struct Writer {
    person: Person,
    group: String,
    acknowledged: Vec<String>,
    posts: u64,
}

impl Writer {
    fn messages(&self) -> String {
        format!("/api/groups/{}/messages", self.group)
    }

    async fn post(&mut self) -> (u16, Value) {
        self.posts += 1;
        let id = format!("message-{}", self.posts);
        let body = json!({"message_id": id, "text": "x".repeat(2000)});
        let answer = self.person.send("POST", &self.messages(), Some(&body)).await;
        if answer.0 == 201 {
            self.acknowledged.push(id);
        }
        answer
    }

    /// Posts until the answer is this one; anything but the two that may come is a failure.
    async fn post_until(&mut self, wanted: u16) -> Value {
        let began = Instant::now();
        loop {
            let (status, answer) = self.post().await;
            assert!([201, 507].contains(&status), "{status} {answer}");
            if status == wanted {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "not {wanted} in time: {status} {answer}");
        }
    }

    /// Everything that was acknowledged can be read, once, in order.
    async fn check(&self) {
        let (mut found, mut before) = (Vec::new(), String::new());
        loop {
            let path = format!("{}?limit=200{before}", self.messages());
            let (status, page) = self.person.get(&path).await;
            assert_eq!(status, 200, "{page}");
            let messages = page["messages"].as_array().unwrap();
            let ids = messages.iter().map(|message| message["message_id"].as_str().unwrap());
            found.splice(0..0, ids.map(str::to_owned));
            if page["more_before"] != json!(true) {
                break;
            }
            before = format!("&before={}", messages[0]["seq"]);
        }
        found.retain(|id| id.starts_with("message-"));
        assert_eq!(found, self.acknowledged);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_posts_loses_nothing_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::open(&dir.path().join("data"));
    let launch = disk.convene(dir.path());
    let node = launch.start().await;
    let person = Person::sign_up(&node.url, "Ana").await;
    let org = person.create_org("Lighthouse").await;
    let group = person.create_group(&org, "Full").await;
    let mut ana = Writer { person, group, acknowledged: Vec::new(), posts: 0 };
    for _ in 0..20 {
        assert_eq!(ana.post().await.0, 201);
    }

    // Below the reserve: refused, with a time to wait, while everything else goes on.
    disk.fill("filler", RESERVE / 2);
    let refused = ana.post_until(507).await;
    assert_eq!(refused["code"], "storage_full");
    assert!(refused["retry_after_ms"].as_u64() > Some(0), "{refused}");
    ana.check().await;

    // A start on a full disk, after a crash.
    node.kill().await;
    let node = launch.start().await;
    let mut ana = ana.at(&node);
    assert_eq!(ana.post_until(507).await["code"], "storage_full");
    ana.check().await;

    // Not a single byte is left, as another program may bring about; and a crash again.
    disk.fill("more", 0);
    node.kill().await;
    disk.fill("rest", 0);
    assert_eq!(disk.free(), 0);
    let node = launch.start().await;
    let mut ana = ana.at(&node);
    assert_eq!(ana.post_until(507).await["code"], "storage_full");
    ana.check().await;

    // Room again: nothing needs to be done.
    for name in ["filler", "more", "rest"] {
        fs::remove_file(disk.path(name)).unwrap();
    }
    ana.post_until(201).await;
    for _ in 0..20 {
        assert_eq!(ana.post().await.0, 201);
    }
    ana.check().await;
    node.kill().await;
    let node = launch.start().await;
    let mut ana = ana.at(&node);
    ana.check().await;
    assert_eq!(ana.post().await.0, 201);
    assert!(disk.path("groups/ballast").exists());
    assert_eq!(node.stop().await, Some(0));
}

impl Writer {
    fn at(self, node: &Convene) -> Self {
        Self { person: self.person.at(&node.url), ..self }
    }
}
