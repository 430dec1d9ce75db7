//! A disk that is really full: posts are refused, nothing is lost, and all goes on when there is room.
//!
//! The data directory is a small file system of its own, in a mount namespace that only these
//! processes see.

use std::{
    fs::{self, File},
    io::Write,
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

/// A small disk; gone when dropped.
struct SmallDisk {
    /// A process that keeps its namespace.
    holder: Child,
    dir: PathBuf,
    user: &'static str,
}

impl SmallDisk {
    /// Mounts one at `dir`; `None` where neither root nor user namespaces are there to do it.
    fn mount(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={DISK},mode=700 tmpfs '{}' && echo mounted && exec sleep 600",
            dir.display()
        );
        for (unshare, user) in [("-m", ""), ("-Urm", "-U --preserve-credentials")] {
            let holder = Command::new("unshare")
                .args([unshare, "sh", "-c", &script])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let Ok(mut holder) = holder else { continue };
            let mut said = String::new();
            let stdout = holder.stdout.take().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).unwrap();
            if said.trim() == "mounted" {
                return Some(Self { holder, dir: dir.to_owned(), user });
            }
            let _ = holder.wait();
        }
        None
    }

    /// A program that runs `convene` where the disk is.
    fn convene(&self, beside: &Path) -> Launch {
        let script = beside.join("convene-on-a-small-disk");
        let (holder, user) = (self.holder.id(), self.user);
        let binary = env!("CARGO_BIN_EXE_convene");
        let text = format!("#!/bin/sh\nexec nsenter -t {holder} {user} -m -- '{binary}' \"$@\"\n");
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Launch::new(script, &self.dir)
            .env("CONVENE_CONTROLLERS__DISK_RESERVE_BYTES", RESERVE.to_string())
    }

    /// A path on the disk, as it is seen from outside.
    fn path(&self, name: &str) -> PathBuf {
        let dir = self.dir.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(dir).join(name)
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
        let _ = self.holder.kill();
        let _ = self.holder.wait();
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
    let Some(disk) = SmallDisk::mount(&dir.path().join("data")) else {
        eprintln!(
            "neither root nor user namespaces: a full disk is tested in the storage crate only"
        );
        return;
    };
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
