//! What is PostgreSQL's own: its lock, its time-outs, its going away, its certificates.

use std::{path::Path, process::Command, time::Duration};

use convene_db::{Database, DbError, Migration, Statement, params};
use convene_storage::{PostgresDatabase, PostgresUrl};
use convene_testing::{
    fault_proxy::{FaultProxy, Line},
    postgres::{PostgresServer, TestDatabase},
};

use crate::database::{postgres, postgres_at};

const SCHEMA: &[Migration] = &[Migration {
    version: 1,
    name: "numbers",
    sql: "CREATE TABLE numbers (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
          INSERT INTO numbers (name, value) VALUES ('n', 1);
          CREATE TABLE notes (note TEXT NOT NULL REFERENCES numbers (name))",
}];

fn set(value: i64) -> Statement {
    Statement::new("UPDATE numbers SET value = $1 WHERE name = 'n'", params![value])
}

fn pause() -> Statement {
    Statement::new("SELECT 1 AS one FROM pg_sleep(0.3)", params![])
}

async fn read(db: &PostgresDatabase) -> Result<i64, DbError> {
    let sql = "SELECT value FROM numbers WHERE name = 'n'";
    db.query(Statement::new(sql, params![])).await?[0].get("value")
}

#[tokio::test]
async fn what_a_batch_has_read_stays_true_until_its_end_whoever_writes() {
    let database = TestDatabase::fresh().await;
    let (one, two) = (postgres(&database), postgres(&database));
    one.migrate(SCHEMA).await.unwrap();
    let long = vec![
        Statement::new("SELECT value FROM numbers WHERE name = 'n' AND value = 1", params![])
            .expect_rows(),
        pause(),
        Statement::new("SELECT value FROM numbers WHERE name = 'n'", params![]),
        Statement::new("UPDATE numbers SET value = value + 10 WHERE name = 'n'", params![]),
    ];
    let (answers, ()) = tokio::join!(one.batch(long), async {
        // Each kind of write waits for the batch, and a read does not.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(read(&two).await, Ok(1));
        two.execute(set(5)).await.unwrap();
        let sql = "UPDATE numbers SET value = value + 100 WHERE name = 'n' RETURNING value";
        let rows = two.query(Statement::new(sql, params![])).await.unwrap();
        assert_eq!(rows[0].get::<i64>("value"), Ok(105), "after the batch, not within it");
    });
    assert_eq!(answers.unwrap()[2][0].get::<i64>("value"), Ok(1));
    assert_eq!(read(&one).await, Ok(105));
}

#[tokio::test]
async fn a_process_that_stalls_in_a_transaction_holds_the_others_up_for_seconds_only() {
    let database = TestDatabase::fresh().await;
    let proxy = FaultProxy::to(database.address()).await;
    let stalling = postgres_at(&database.url_through(&proxy.address()));
    let other = postgres(&database);
    stalling.migrate(SCHEMA).await.unwrap();
    // With the connection warm, the lock is taken at once and nothing comes back from then on.
    stalling.batch(vec![pause(), set(2)]).await.unwrap();
    let (stalled, written) = tokio::join!(stalling.batch(vec![pause(), set(3)]), async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        proxy.set(Line::Silent);
        other.execute(set(4)).await
    });
    assert_eq!(written, Ok(1));
    assert!(matches!(stalled, Err(DbError::Unavailable(_))), "{stalled:?}");
    assert_eq!(read(&other).await, Ok(4), "the stalled transaction was rolled back");
    proxy.set(Line::Open);
    assert_eq!(read(&stalling).await, Ok(4));
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_no_transaction_open() {
    let database = TestDatabase::fresh().await;
    let db = postgres(&database);
    db.migrate(SCHEMA).await.unwrap();
    for _ in 0..6 {
        let work = db.batch(vec![set(2), pause()]);
        let _ = tokio::time::timeout(Duration::from_millis(20), work).await;
    }
    db.execute(set(7)).await.unwrap();
    assert_eq!(read(&db).await, Ok(7));
}

#[tokio::test]
async fn texts_compare_by_their_bytes_whatever_the_database_would_do() {
    let database = TestDatabase::fresh().await;
    let db = postgres(&database);
    db.migrate(SCHEMA).await.unwrap();
    for name in ["B", "a", "é", "_", "Z"] {
        let sql = "INSERT INTO numbers (name, value) VALUES ($1, 0)";
        db.execute(Statement::new(sql, params![name])).await.unwrap();
    }
    let sql = "SELECT name FROM numbers WHERE name > $1 ORDER BY name";
    let rows = db.query(Statement::new(sql, params!["A"])).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get("name").unwrap()).collect();
    assert_eq!(names, ["B", "Z", "_", "a", "n", "é"]);
}

#[tokio::test]
async fn a_server_that_goes_away_is_unavailable_and_found_again_when_it_is_back() {
    let server = tokio::task::spawn_blocking(|| PostgresServer::start(|_| {})).await.unwrap();
    let database = TestDatabase::on(&server.url()).await;
    let db = postgres(&database);
    db.migrate(SCHEMA).await.unwrap();
    for (round, stop) in [PostgresServer::stop, PostgresServer::kill].into_iter().enumerate() {
        let value = 10 + round as i64;
        db.execute(set(value)).await.unwrap();
        stop(&server);
        for _ in 0..3 {
            assert!(matches!(read(&db).await, Err(DbError::Unavailable(_))));
            let write = db.batch(vec![set(99)]).await;
            assert!(matches!(write, Err(DbError::Unavailable(_))), "{write:?}");
        }
        server.start_again();
        assert_eq!(read(&db).await, Ok(value), "nothing that was answered is lost");
        db.batch(vec![set(value + 1)]).await.unwrap();
    }
    drop(database);
}

#[tokio::test]
async fn connections_that_were_cut_while_nobody_used_them_are_replaced_unnoticed() {
    let database = TestDatabase::fresh().await;
    let proxy = FaultProxy::to(database.address()).await;
    let db = postgres_at(&database.url_through(&proxy.address()));
    db.migrate(SCHEMA).await.unwrap();
    for value in 0..5 {
        db.execute(set(value)).await.unwrap();
        proxy.cut().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(read(&db).await, Ok(value));
    }
}

#[tokio::test]
async fn who_may_not_enter_is_told_so_without_the_password() {
    let database = TestDatabase::fresh().await;
    let (user, _) = database.url().rsplit_once('@').unwrap();
    let (_, password) = user.rsplit_once(':').unwrap();
    let wrong = database.url().replace(password, "a-wrong-password");
    for error in [
        postgres_at(&wrong).migrate(SCHEMA).await.unwrap_err(),
        read(&postgres_at(&wrong)).await.unwrap_err(),
    ] {
        let DbError::Unavailable(text) = error else { panic!("{error:?}") };
        assert!(!text.contains("wrong-password") && !text.contains(password), "{text}");
        assert!(text.contains("password authentication failed"), "{text}");
    }
}

#[tokio::test]
async fn the_server_is_asked_who_it_is_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, stranger) = (folder.path().to_owned(), folder.path().join("stranger.pem"));
    let server = tokio::task::spawn_blocking(move || {
        certificate(&path, "stranger");
        certificate(&path, "server");
        PostgresServer::start(|data| {
            for file in ["server.pem", "server.key"] {
                std::fs::copy(path.join(file), data.join(file)).unwrap();
                convene_testing::postgres::own(&data.join(file));
            }
            let settings = "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
            std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
            let only_tls = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
            std::fs::write(data.join("pg_hba.conf"), only_tls).unwrap();
        })
    })
    .await
    .unwrap();
    let own = folder.path().join("server.pem");
    let by_name = server.url().replace("127.0.0.1", "localhost");
    for (url, parameters, works) in [
        (server.url(), "sslmode=disable".to_owned(), false),
        (server.url(), "sslmode=prefer".to_owned(), true),
        (server.url(), "sslmode=require".to_owned(), true),
        (server.url(), "sslmode=verify-full".to_owned(), false),
        (by_name.clone(), format!("sslmode=verify-full&sslrootcert={}", own.display()), true),
        (by_name, format!("sslmode=verify-full&sslrootcert={}", stranger.display()), false),
        // The certificate is for another name.
        (server.url(), format!("sslmode=verify-full&sslrootcert={}", own.display()), false),
    ] {
        let url: PostgresUrl = format!("{url}?{parameters}").parse().unwrap();
        let asked = postgres_on(&url).query(Statement::new("SELECT 1 AS one", params![])).await;
        assert_eq!(asked.is_ok(), works, "{parameters}: {asked:?}");
    }
}

fn postgres_on(url: &PostgresUrl) -> PostgresDatabase {
    let options = convene_storage::PostgresOptions { schema: "it", max_connections: 2 };
    PostgresDatabase::open(url, &options).unwrap()
}

/// A certificate for `localhost` that signs itself, made by the tool that Debian's PostgreSQL
/// brings.
fn certificate(folder: &Path, name: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(folder.join(format!("{name}.pem")))
        .output()
        .expect("openssl is there where PostgreSQL is");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
