//! Migrations: the schema is made, and each migration runs once, under a lock that processes which
//! start at the same time wait for.

use std::time::Duration;

use convene_db::{DbError, Migration};

use super::{CONNECT_TIMEOUT, Shared, error::from_postgres, with_causes};

/// How long a process waits for the migrations of another one.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Brings the schema up to date on a connection of its own, which ends with it.
pub(super) async fn run(shared: &Shared, migrations: &[Migration]) -> Result<(), DbError> {
    let migrations = migrations
        .iter()
        .map(|migration| {
            let name = format!("V{}__{}", migration.version, migration.name);
            refinery::Migration::unapplied(&name, migration.sql)
                .map_err(|error| DbError::Other(format!("migration {name}: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let connecting = shared.config.connect(shared.tls.clone());
    let (mut client, connection) = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| DbError::Unavailable("no connection came about in time".into()))?
        .map_err(|error| match error.as_db_error() {
            Some(said) => DbError::Unavailable(said.message().to_owned()),
            None => DbError::Unavailable(with_causes(&error)),
        })?;
    let connection = tokio::spawn(connection);
    let done = migrate(shared.schema, &mut client, &migrations).await;
    drop(client);
    // Its locks are given back before anybody is told that the schema is ready.
    let _ = connection.await;
    done
}

async fn migrate(
    schema: &str,
    client: &mut tokio_postgres::Client,
    migrations: &[refinery::Migration],
) -> Result<(), DbError> {
    let failed = |error: tokio_postgres::Error| from_postgres(&error);
    let encoding = client.query_one("SHOW server_encoding", &[]).await.map_err(failed)?;
    let encoding: &str = encoding.get(0);
    if encoding != "UTF8" {
        return Err(DbError::Other(format!("the database is in {encoding}; it must be in UTF8")));
    }
    let (class, object) = lock_key("migrate", schema);
    let timeout = MIGRATION_LOCK_TIMEOUT.as_millis();
    let lock = format!(
        "SET lock_timeout = {timeout}; SELECT pg_advisory_lock({class}, {object}); \
         SET lock_timeout = 0"
    );
    client.batch_execute(&lock).await.map_err(failed)?;
    // Only who may make schemas may say IF NOT EXISTS of one that is there.
    let there = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
    if client.query_opt(there, &[&schema]).await.map_err(failed)?.is_none() {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(failed)?;
    }
    if let Err(error) = refinery::Runner::new(migrations).run_async(client).await {
        let text = format!("migrations: {}", with_causes(&error));
        let gone = client.is_closed();
        return Err(if gone { DbError::Unavailable(text) } else { DbError::Other(text) });
    }
    compare_by_bytes(schema, client).await.map_err(failed)
}

/// Lets texts compare and sort byte by byte, as they do in SQLite, whatever the database's own
/// collation is: pages of a list are cut by comparing ids.
async fn compare_by_bytes(
    schema: &str,
    client: &mut tokio_postgres::Client,
) -> Result<(), tokio_postgres::Error> {
    const OTHERS: &str =
        "SELECT format('ALTER TABLE %I.%I ALTER COLUMN %I TYPE text COLLATE \"C\"',
            n.nspname, c.relname, a.attname)
        FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
        WHERE n.nspname = $1 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
          AND a.atttypid = 'text'::regtype AND l.collname <> 'C'
        ORDER BY c.oid, a.attnum";
    let transaction = client.transaction().await?;
    for row in transaction.query(OTHERS, &[&schema]).await? {
        let alter: &str = row.get(0);
        transaction.batch_execute(alter).await?;
    }
    transaction.commit().await
}

/// The two numbers of an advisory lock of a schema: the same in every process and version, and
/// unlikely to be anybody else's in the same database.
pub(super) fn lock_key(purpose: &str, schema: &str) -> (i32, i32) {
    let number = |text: &str| {
        // FNV-1a, which needs nothing and never changes.
        let hash = text
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        i32::from_be_bytes(hash.to_be_bytes())
    };
    (number(&format!("convene {purpose}")), number(schema))
}
