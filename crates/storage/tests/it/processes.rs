//! Several processes on one directory, a file or a schema: they open and migrate it at the same time,
//! and each transaction of theirs is whole.

use std::process::Stdio;

use convene_db::{Database, Migration, Statement, params};
use convene_storage::SqliteDatabase;
use convene_testing::postgres::TestDatabase;
use tokio::process::Command;

const SCHEMA: &[Migration] = &[
    Migration {
        version: 1,
        name: "counters",
        sql: "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
              CREATE TABLE steps (id TEXT PRIMARY KEY)",
    },
    // Would fail, or count anew, if it ran twice.
    Migration {
        version: 2,
        name: "count_steps",
        sql: "INSERT INTO counters (name, value) VALUES ('steps', 0)",
    },
];

const PROCESSES: usize = 4;
const STEPS: usize = 60;
/// Tells a child which file or address to open; a child is this very binary with one test to run.
const PLACE: &str = "CONVENE_STORAGE_TEST_PLACE";

#[tokio::test]
async fn several_processes_open_migrate_and_write_one_file_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("shared.db").to_string_lossy().into_owned();
    several_processes_share(&place).await;
}

#[tokio::test]
async fn several_processes_make_migrate_and_write_one_schema_at_the_same_time() {
    let database = TestDatabase::fresh().await;
    several_processes_share(database.url()).await;
}

async fn several_processes_share(place: &str) {
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes::child", "--ignored"])
                .env(PLACE, place)
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let db = open(place);
    let value = Statement::new("SELECT value FROM counters WHERE name = 'steps'", params![]);
    let rows = db.query(value).await.unwrap();
    assert_eq!(rows[0].get::<u64>("value").unwrap(), (PROCESSES * STEPS) as u64);
    let steps = db.query(Statement::new("SELECT id FROM steps", params![])).await.unwrap();
    assert_eq!(steps.len(), PROCESSES * STEPS);
}

fn open(place: &str) -> Box<dyn Database> {
    if place.starts_with("postgres://") {
        return Box::new(crate::database::postgres_at(place));
    }
    Box::new(SqliteDatabase::open(place).unwrap())
}

#[tokio::test]
#[ignore = "the part of a child process, which only its parent starts"]
async fn child() {
    let db = open(&std::env::var(PLACE).unwrap());
    db.migrate(SCHEMA).await.unwrap();
    for step in 0..STEPS {
        let id = format!("{}-{step}", std::process::id());
        db.batch(vec![
            Statement::new("INSERT INTO steps (id) VALUES ($1)", params![id]),
            Statement::new("UPDATE counters SET value = value + 1 WHERE name = 'steps'", params![])
                .expect_rows(),
        ])
        .await
        .unwrap();
        let counted = Statement::new("SELECT value FROM counters", params![]);
        assert_eq!(db.query(counted).await.unwrap().len(), 1);
    }
}
