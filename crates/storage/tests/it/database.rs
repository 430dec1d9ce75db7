//! What every backend of the database port must do; each test takes `&dyn Database`.

use std::time::Duration;

use convene_db::{Database, DbError, LEASES_TABLE, Migration, Statement, leader, params};
use convene_model::Timestamp;
use convene_storage::{PostgresDatabase, PostgresOptions, SqliteDatabase};
use convene_testing::postgres::TestDatabase;

/// The database of a test as a process opens it.
pub(crate) fn postgres(database: &TestDatabase) -> PostgresDatabase {
    postgres_at(database.url())
}

pub(crate) fn postgres_at(url: &str) -> PostgresDatabase {
    let options = PostgresOptions { schema: "it", max_connections: 8 };
    PostgresDatabase::open(&url.parse().unwrap(), &options).unwrap()
}

const SCHEMA: &[Migration] = &[
    Migration {
        version: 1,
        name: "accounts",
        sql: "CREATE TABLE accounts (
                  id TEXT PRIMARY KEY,
                  email TEXT NOT NULL UNIQUE,
                  created_at BIGINT NOT NULL,
                  note TEXT,
                  active BIGINT NOT NULL DEFAULT 0
              );
              CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    },
    Migration {
        version: 2,
        name: "count_accounts",
        sql: "INSERT INTO counters (name, value) VALUES ('accounts', 0)",
    },
];

/// Each test of the suite on each backend that there is.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    let dir = tempfile::tempdir().unwrap();
                    let db = super::SqliteDatabase::open(dir.path().join("test.db")).unwrap();
                    super::$test(&db).await;
                }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    let database = super::TestDatabase::fresh().await;
                    super::$test(&super::postgres(&database)).await;
                }
            )*
        }
    };
}

conformance!(
    parameters_are_taken_by_number_and_values_come_back,
    execute_says_how_many_rows_it_affected,
    insert_returning_answers_rows_and_is_kept,
    upsert_returning_answers_the_row_that_stands,
    null_compares_with_is_not_distinct_from,
    a_batch_is_kept_whole,
    a_batch_with_an_unmet_statement_changes_nothing,
    an_expected_row_may_be_read_or_changed,
    a_second_row_with_the_same_key_is_refused_as_unique,
    a_guarded_counter_stops_at_its_limit_under_concurrency,
    migrations_run_once_and_a_changed_one_is_refused,
    a_failing_migration_leaves_nothing_behind,
    wrong_sql_and_wrong_parameters_are_errors,
    a_lease_has_one_holder_at_a_time,
    of_many_who_want_a_lease_at_once_one_gets_it,
    a_holder_that_stalled_can_do_nothing_under_its_old_lease,
    a_lease_that_is_given_up_is_free_at_once,
);

fn insert(id: &str, email: &str) -> Statement {
    Statement::new(
        "INSERT INTO accounts (id, email, created_at) VALUES ($1, $2, $3)",
        params![id, email, 1_732_100_000_000_i64],
    )
}

async fn count(db: &dyn Database) -> i64 {
    let rows = db.query(Statement::new("SELECT count(*) AS n FROM accounts", params![])).await;
    rows.unwrap()[0].get("n").unwrap()
}

async fn parameters_are_taken_by_number_and_values_come_back(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    db.execute(Statement::new(
        "INSERT INTO accounts (active, note, created_at, email, id) VALUES ($5, $4, $3, $2, $1)",
        params!["a", "a@x", i64::MAX, None::<String>, true],
    ))
    .await
    .unwrap();
    let rows = db
        .query(Statement::new(
            "SELECT id, email, created_at, note, active FROM accounts
             WHERE email = $2 AND (id = $1 OR id = $2)",
            params!["a", "a@x"],
        ))
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row.get::<String>("id").unwrap(), "a");
    assert_eq!(row.get::<i64>("created_at").unwrap(), i64::MAX);
    assert_eq!(row.get::<Option<String>>("note").unwrap(), None);
    assert!(row.get::<bool>("active").unwrap());
    assert!(matches!(row.get::<String>("note"), Err(DbError::Decode { .. })));
}

async fn execute_says_how_many_rows_it_affected(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    for id in ["a", "b", "c"] {
        assert_eq!(db.execute(insert(id, &format!("{id}@x"))).await.unwrap(), 1);
    }
    let update = |id: &'static str| {
        Statement::new("UPDATE accounts SET active = 1 WHERE id >= $1", params![id])
    };
    assert_eq!(db.execute(update("b")).await.unwrap(), 2);
    assert_eq!(db.execute(update("z")).await.unwrap(), 0);
}

async fn insert_returning_answers_rows_and_is_kept(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    let rows = db
        .query(Statement::new(
            "INSERT INTO accounts (id, email, created_at) VALUES ($1, $2, $3) RETURNING id",
            params!["a", "a@x", 5],
        ))
        .await
        .unwrap();
    assert_eq!(rows[0].get::<String>("id").unwrap(), "a");
    assert_eq!(count(db).await, 1);
}

async fn upsert_returning_answers_the_row_that_stands(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    for expected in [7, 14] {
        let rows = db
            .query(Statement::new(
                "INSERT INTO counters (name, value) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET value = counters.value + excluded.value
                 RETURNING value",
                params!["visits", 7],
            ))
            .await
            .unwrap();
        assert_eq!(rows[0].get::<i64>("value").unwrap(), expected);
    }
}

async fn null_compares_with_is_not_distinct_from(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    db.execute(insert("a", "a@x")).await.unwrap();
    let find = |note: Option<&str>| {
        Statement::new("SELECT id FROM accounts WHERE note IS NOT DISTINCT FROM $1", params![note])
    };
    assert_eq!(db.query(find(None)).await.unwrap().len(), 1);
    assert_eq!(db.query(find(Some("n"))).await.unwrap().len(), 0);
}

async fn a_batch_is_kept_whole(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    let answers = db
        .batch(vec![
            insert("a", "a@x").expect_rows(),
            Statement::new("UPDATE counters SET value = value + 1", params![]),
            Statement::new("SELECT value FROM counters WHERE name = $1", params!["accounts"]),
        ])
        .await
        .unwrap();
    assert_eq!(answers.len(), 3);
    assert!(answers[0].is_empty());
    assert_eq!(answers[2][0].get::<i64>("value").unwrap(), 1, "a batch sees its own writes");
    assert_eq!(count(db).await, 1);
}

async fn a_batch_with_an_unmet_statement_changes_nothing(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    let error = db
        .batch(vec![
            insert("a", "a@x"),
            Statement::new("UPDATE counters SET value = 9 WHERE name = $1", params!["nothing"])
                .expect_rows(),
            insert("b", "b@x"),
        ])
        .await
        .unwrap_err();
    assert_eq!(error, DbError::Unmet { index: 1 });
    assert_eq!(count(db).await, 0);
    // Without the expectation the same statements are kept.
    db.batch(vec![
        insert("a", "a@x"),
        Statement::new("UPDATE counters SET value = 9 WHERE name = $1", params!["nothing"]),
    ])
    .await
    .unwrap();
    assert_eq!(count(db).await, 1);
}

async fn an_expected_row_may_be_read_or_changed(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    let read = |name: &'static str| {
        Statement::new("SELECT value FROM counters WHERE name = $1", params![name]).expect_rows()
    };
    db.batch(vec![read("accounts"), insert("a", "a@x")]).await.unwrap();
    let error = db.batch(vec![insert("b", "b@x"), read("nothing")]).await.unwrap_err();
    assert_eq!(error, DbError::Unmet { index: 1 });
    assert_eq!(count(db).await, 1);
}

async fn a_second_row_with_the_same_key_is_refused_as_unique(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    db.execute(insert("a", "a@x")).await.unwrap();
    for (id, email) in [("a", "other@x"), ("other", "a@x")] {
        let error = db.execute(insert(id, email)).await.unwrap_err();
        assert!(matches!(&error, DbError::Unique { constraint } if !constraint.is_empty()));
        let error = db.batch(vec![insert("c", "c@x"), insert(id, email)]).await.unwrap_err();
        assert!(matches!(error, DbError::Unique { .. }));
    }
    assert_eq!(count(db).await, 1);
    let error = db
        .execute(Statement::new("INSERT INTO accounts (id) VALUES ($1)", params!["d"]))
        .await
        .unwrap_err();
    assert!(matches!(error, DbError::Other(_)), "a missing value is no duplicate: {error}");
}

async fn a_guarded_counter_stops_at_its_limit_under_concurrency(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    let attempts = (0..20).map(|i| async move {
        db.batch(vec![
            insert(&format!("a{i}"), &format!("a{i}@x")).expect_rows(),
            Statement::new(
                "UPDATE counters SET value = value + 1 WHERE name = 'accounts' AND value < $1",
                params![7],
            )
            .expect_rows(),
        ])
        .await
    });
    let mut met = 0;
    let mut set = Vec::new();
    for attempt in attempts {
        set.push(Box::pin(attempt));
    }
    for result in join_all(set).await {
        match result {
            Ok(_) => met += 1,
            Err(error) => assert_eq!(error, DbError::Unmet { index: 1 }),
        }
    }
    assert_eq!(met, 7);
    assert_eq!(count(db).await, 7);
}

/// Polls all futures together.
async fn join_all<T>(mut futures: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}

async fn migrations_run_once_and_a_changed_one_is_refused(db: &dyn Database) {
    db.migrate(&SCHEMA[..1]).await.unwrap();
    db.execute(insert("a", "a@x")).await.unwrap();
    db.migrate(SCHEMA).await.unwrap();
    db.migrate(SCHEMA).await.unwrap();
    let rows = db.query(Statement::new("SELECT name FROM counters", params![])).await.unwrap();
    assert_eq!(rows.len(), 1, "the second migration ran exactly once");
    let changed = [Migration { sql: "CREATE TABLE other (id TEXT)", ..SCHEMA[0] }, SCHEMA[1]];
    assert!(matches!(db.migrate(&changed).await, Err(DbError::Other(_))));
    assert!(
        matches!(db.migrate(&SCHEMA[..1]).await, Err(DbError::Other(_))),
        "a schema from a later version is refused"
    );
    assert_eq!(count(db).await, 1);
}

async fn a_failing_migration_leaves_nothing_behind(db: &dyn Database) {
    let broken = Migration {
        version: 3,
        name: "broken",
        sql: "CREATE TABLE half (id TEXT); INSERT INTO nowhere (id) VALUES ('x')",
    };
    assert!(db.migrate(&[SCHEMA[0], SCHEMA[1], broken]).await.is_err());
    assert!(db.query(Statement::new("SELECT id FROM half", params![])).await.is_err());
    let mended = Migration { sql: "CREATE TABLE half (id TEXT)", ..broken };
    db.migrate(&[SCHEMA[0], SCHEMA[1], mended]).await.unwrap();
    assert!(db.query(Statement::new("SELECT id FROM half", params![])).await.unwrap().is_empty());
}

async fn wrong_sql_and_wrong_parameters_are_errors(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    for statement in [
        Statement::new("SELEC 1", params![]),
        Statement::new("SELECT id FROM accounts WHERE id = $1", params![]),
        Statement::new("SELECT id FROM accounts", params!["one too many"]),
    ] {
        assert!(matches!(db.query(statement.clone()).await, Err(DbError::Other(_))));
        assert!(matches!(db.execute(statement.clone()).await, Err(DbError::Other(_))));
        assert!(matches!(db.batch(vec![statement]).await, Err(DbError::Other(_))));
    }
}

const LEASES: &[Migration] = &[Migration { version: 1, name: "leases", sql: LEASES_TABLE }];
const TTL: Duration = Duration::from_secs(30);

/// A moment of the tests' clock, in seconds.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + seconds)
}

async fn a_lease_has_one_holder_at_a_time(db: &dyn Database) {
    db.migrate(LEASES).await.unwrap();
    let first = leader(db, "sweep", "a", at(0), TTL).await.unwrap().unwrap();
    assert_eq!((first.term, first.expires_at), (1, at(30)));
    assert_eq!(leader(db, "sweep", "b", at(29), TTL).await.unwrap(), None);
    assert!(leader(db, "other work", "b", at(29), TTL).await.unwrap().is_some());
    let renewed = leader(db, "sweep", "a", at(20), TTL).await.unwrap().unwrap();
    assert_eq!((renewed.term, renewed.expires_at), (1, at(50)));
    assert_eq!(leader(db, "sweep", "b", at(49), TTL).await.unwrap(), None);
    let taken = leader(db, "sweep", "b", at(50), TTL).await.unwrap().unwrap();
    assert_eq!(taken.term, 2, "another holder is another term");
    assert_eq!(leader(db, "sweep", "a", at(51), TTL).await.unwrap(), None);
    let late = leader(db, "sweep", "b", at(80), TTL).await.unwrap().unwrap();
    assert_eq!(late.term, 3, "a lease that had run out begins anew, whoever had it");
}

async fn of_many_who_want_a_lease_at_once_one_gets_it(db: &dyn Database) {
    db.migrate(LEASES).await.unwrap();
    for round in 0..5 {
        let wanting = (0..16).map(|i| {
            Box::pin(async move {
                leader(db, "sweep", &format!("{round}-{i}"), at(round * 60), TTL).await.unwrap()
            })
        });
        let got: Vec<_> = join_all(wanting.collect()).await.into_iter().flatten().collect();
        assert_eq!(got.len(), 1, "round {round}: {got:?}");
        assert_eq!(got[0].term, round + 1);
    }
}

async fn a_holder_that_stalled_can_do_nothing_under_its_old_lease(db: &dyn Database) {
    db.migrate(SCHEMA).await.unwrap();
    let leases = [SCHEMA[0], SCHEMA[1], Migration { version: 3, ..LEASES[0] }];
    db.migrate(&leases).await.unwrap();
    let stalled = leader(db, "sweep", "a", at(0), TTL).await.unwrap().unwrap();
    db.batch(vec![stalled.guard(at(29)), insert("a", "a@x")]).await.unwrap();
    let late = db.batch(vec![stalled.guard(at(30)), insert("b", "b@x")]).await;
    assert_eq!(late, Err(DbError::Unmet { index: 0 }), "it has run out");
    let next = leader(db, "sweep", "b", at(31), TTL).await.unwrap().unwrap();
    // The stalled holder's clock stands where it was, and it still believes in its lease.
    let late = db.batch(vec![stalled.guard(at(1)), insert("b", "b@x")]).await;
    assert_eq!(late, Err(DbError::Unmet { index: 0 }));
    stalled.resign(db).await.unwrap();
    db.batch(vec![next.guard(at(32)), insert("c", "c@x")]).await.unwrap();
    assert_eq!(count(db).await, 2);
}

async fn a_lease_that_is_given_up_is_free_at_once(db: &dyn Database) {
    db.migrate(LEASES).await.unwrap();
    let held = leader(db, "sweep", "a", at(0), TTL).await.unwrap().unwrap();
    held.resign(db).await.unwrap();
    let next = leader(db, "sweep", "b", at(1), TTL).await.unwrap().unwrap();
    assert_eq!(next.term, 2);
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let db = SqliteDatabase::open(&path).unwrap();
    db.migrate(SCHEMA).await.unwrap();
    db.execute(insert("a", "a@x")).await.unwrap();
    drop(db);
    assert_eq!(count(&SqliteDatabase::open(&path).unwrap()).await, 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    std::fs::write(&path, "a shopping list, long enough to be mistaken for something").unwrap();
    assert!(matches!(SqliteDatabase::open(&path), Err(DbError::Unavailable(_))));
    let missing = dir.path().join("missing").join("test.db");
    assert!(matches!(SqliteDatabase::open(missing), Err(DbError::Unavailable(_))));
}
