//! The setup of the visibility tests: a database with Supabase's roles, and changes that are built
//! from its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::{Strategy, prop_oneof};
use rapport::change::{
    ChangeEvent, ChangeTransaction, Column, ColumnValue, OldRow, Relation, ReplicaIdentity, Row,
    RowChange, TableName,
};
use rapport::config::VisibilityConfig;
use rapport::db::connect::Connector;
use rapport::observability::metrics::VisibilityMetrics;
use rapport::shutdown::Tasks;
use rapport::visibility::{
    Binding, ChannelId, Delivery, Identity, Payload, SubscribeError, Subscriber,
    SubscriptionRequest, Visibility,
};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::supabase::{AUTH, ROLES, create_roles};

/// Roles of the application: an owner of tables and its heir, an editor and its member, and
/// `vis_altered`, which only one test uses, because it alters the role.
const APPLICATION_ROLES: &[(&str, &str)] = &[
    ("vis_owner", ""),
    ("vis_heir", "in role vis_owner"),
    ("vis_editor", ""),
    ("vis_editor_member", "in role vis_editor"),
    ("vis_altered", ""),
];

const SETUP: &str = "
create schema private;
create publication supabase_realtime;
grant create, usage on schema public to vis_owner;
";

/// A database, a connection to it, and the visibility component that uses it.
pub(crate) struct Bench {
    pub(crate) admin: Client,
    pub(crate) visibility: Visibility,
    pub(crate) metrics: VisibilityMetrics,
    pub(crate) database: Option<TestDatabase>,
    /// The latest definition of each table.
    relations: Mutex<BTreeMap<TableName, Arc<Relation>>>,
    tasks: Tasks,
}

/// Returns settings under which nothing cached is ever used.
pub(crate) fn strict() -> VisibilityConfig {
    VisibilityConfig {
        pool_size: 4,
        catalog_ttl: Duration::ZERO,
        batch_max_rows: 500,
        statement_timeout: Duration::from_secs(5),
        delete_without_old_row: true,
        tell_unauthorized: true,
        tables_without_old_rows: Vec::new(),
        tables_with_unchecked_old_rows: Vec::new(),
    }
}

/// Size above which rows are reduced.
pub(crate) const MAX_RECORD_BYTES: usize = 10_000;

/// Returns the id of user number `n`.
pub(crate) fn user(n: u32) -> String {
    format!("00000000-0000-0000-0000-{n:012}")
}

/// Returns an identity with this role, and the subject and team of user `n`.
pub(crate) fn identity(role: &str, n: u32) -> Arc<Identity> {
    claims(
        role,
        &json!({"sub": user(n), "role": role, "team": format!("team{n}")}),
    )
}

pub(crate) fn claims(role: &str, claims: &Value) -> Arc<Identity> {
    Arc::new(Identity {
        role: role.to_owned(),
        claims: claims.to_string().into(),
    })
}

impl Bench {
    pub(crate) async fn new(sql: &str) -> Self {
        Self::with(strict(), sql).await
    }

    pub(crate) async fn with(config: VisibilityConfig, sql: &str) -> Self {
        let database = TestDatabase::bare().await;
        let mut bench = Self::at(database.url(), config, sql).await;
        bench.database = Some(database);
        bench
    }

    /// Like [`Bench::with`], in the database with this connection string.
    pub(crate) async fn at(url: &str, config: VisibilityConfig, sql: &str) -> Self {
        Self::logged_in(url, url, config, sql).await
    }

    /// Like [`Bench::at`], with a separate login for visibility.
    pub(crate) async fn logged_in(
        url: &str,
        login_url: &str,
        config: VisibilityConfig,
        sql: &str,
    ) -> Self {
        let admin = crate::support::database::connect(url).await;
        create_roles(&admin, ROLES).await;
        create_roles(&admin, APPLICATION_ROLES).await;
        admin.batch_execute(AUTH).await.unwrap();
        admin.batch_execute(SETUP).await.unwrap();
        admin
            .batch_execute("set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = 'hex'")
            .await
            .unwrap();
        admin.batch_execute(sql).await.unwrap();
        let tasks = Tasks::new();
        let metrics = VisibilityMetrics::default();
        let visibility = Visibility::new(
            Connector::new(login_url).unwrap(),
            &config,
            "supabase_realtime",
            MAX_RECORD_BYTES,
            metrics.clone(),
            &tasks,
        );
        Self {
            admin,
            visibility,
            metrics,
            database: None,
            relations: Mutex::default(),
            tasks,
        }
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap();
    }

    /// Joins channel `n` with one binding whose id is also `n`.
    pub(crate) async fn subscribe(
        &self,
        n: u32,
        identity: &Arc<Identity>,
        params: Value,
    ) -> Result<(), SubscribeError> {
        let request = SubscriptionRequest::parse(&params)?;
        self.visibility
            .subscribe(
                ChannelId(u64::from(n)),
                Subscriber::new(Arc::clone(identity)),
                vec![Binding { id: n, request }],
            )
            .await
    }

    /// Joins channel `n` for all changes of `public.<table>`.
    pub(crate) async fn watch(&self, n: u32, identity: &Arc<Identity>, table: &str) {
        self.subscribe(n, identity, json!({"schema": "public", "table": table}))
            .await
            .unwrap();
    }

    /// Joins channels 1 and 2 as two users, 3 as `anon`, and 4 as a role that bypasses row-level
    /// security.
    pub(crate) async fn watch_as_each(&self, table: &str) {
        let roles = ["authenticated", "authenticated", "anon", "service_role"];
        for (n, role) in (1..).zip(roles) {
            self.watch(n, &identity(role, n), table).await;
        }
    }

    /// Returns the table definition as the replication stream describes it. The `Arc` is a new one
    /// only if the definition has changed.
    pub(crate) async fn relation(&self, table: &str) -> Arc<Relation> {
        self.relation_in("public", table).await
    }

    pub(crate) async fn relation_in(&self, schema: &str, table: &str) -> Arc<Relation> {
        let relation = self.description(schema, table).await;
        let mut relations = self.relations.lock().unwrap();
        let known = relations
            .entry(relation.table.clone())
            .or_insert_with(|| Arc::clone(&relation));
        if *known != relation {
            *known = relation;
        }
        Arc::clone(known)
    }

    /// Returns a new definition of the table, with which the stream would show that the table may
    /// have changed.
    pub(crate) async fn description(&self, schema: &str, table: &str) -> Arc<Relation> {
        let rows = self
            .admin
            .query(
                "select c.oid, c.relreplident::text, a.attname::text, a.atttypid, a.atttypmod,
                   coalesce(a.attnum = any(i.indkey), false)
                 from pg_class c
                 join pg_namespace n on n.oid = c.relnamespace
                 join pg_attribute a on a.attrelid = c.oid
                 left join pg_index i on i.indrelid = c.oid
                   and case c.relreplident when 'i' then i.indisreplident when 'd' then i.indisprimary else false end
                 where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped
                   and a.attgenerated = ''
                 order by a.attnum",
                &[&schema, &table],
            )
            .await
            .unwrap();
        let identity = match &*rows[0].get::<_, String>(1) {
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            "n" => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        };
        Arc::new(Relation {
            oid: rows[0].get(0),
            table: TableName::new(schema, table),
            identity,
            columns: rows
                .iter()
                .map(|row| Column {
                    name: row.get(2),
                    type_oid: row.get(3),
                    type_modifier: row.get(4),
                    is_identity: identity == ReplicaIdentity::Full || row.get(5),
                })
                .collect(),
        })
    }

    /// Returns images of the rows of `relation` for which `condition` is true, ordered by their
    /// first column.
    pub(crate) async fn images(&self, relation: &Relation, condition: &str) -> Vec<Row> {
        let list: Vec<_> = relation
            .columns
            .iter()
            .map(|column| format!("\"{}\"", column.name.replace('"', "\"\"")))
            .collect();
        // The results of a simple query are printed by the types' output functions, as in the
        // replication stream.
        let rows = self
            .admin
            .simple_query(&format!(
                "select {} from \"{}\".\"{}\" where {condition} order by 1",
                list.join(", "),
                relation.table.schema,
                relation.table.name.replace('"', "\"\"")
            ))
            .await
            .unwrap();
        rows.iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(Row((0..row.len())
                    .map(|column| match row.get(column) {
                        Some(text) => ColumnValue::Text(text.to_owned().into()),
                        None => ColumnValue::Null,
                    })
                    .collect())),
                _ => None,
            })
            .collect()
    }

    /// Waits until these definitions are old enough that they alone do not cause a reading of the
    /// catalogue. This cannot be used with [`strict`] settings, under which nothing cached is used.
    pub(crate) async fn settle(&self, relations: &[&Arc<Relation>]) {
        eventually("the definitions are old", async || {
            let checks = self.metrics.catalog_checks.get();
            for relation in relations {
                let batch = [transaction(
                    relation,
                    RowChange::Delete {
                        old: OldRow::Key(Row(Vec::new())),
                    },
                )];
                self.resolve(&batch).await;
            }
            (self.metrics.catalog_checks.get() == checks).then_some(())
        })
        .await;
    }

    pub(crate) async fn resolve(&self, transactions: &[Arc<ChangeTransaction>]) -> Vec<Delivery> {
        self.visibility.resolve(transactions).await.deliveries
    }

    /// Resolves each change as a separate transaction. Returns the recipients of each change, by
    /// payload.
    pub(crate) async fn seen(&self, relation: &Arc<Relation>, rows: Vec<RowChange>) -> Vec<Seen> {
        let count = rows.len();
        let batch: Vec<_> = rows
            .into_iter()
            .map(|row| transaction(relation, row))
            .collect();
        let mut seen = vec![Seen::default(); count];
        for delivery in self.resolve(&batch).await {
            let own = &mut seen[delivery.transaction];
            for recipient in &delivery.recipients {
                let n = u32::try_from(recipient.channel.0).unwrap();
                match &delivery.payload {
                    Payload::Row(..) => own.rows.insert(n),
                    Payload::Refused(text) => own.refused.insert(n, text).is_none(),
                    Payload::CheckFailed(text) => own.unanswered.insert(n, text.clone()).is_none(),
                };
            }
        }
        seen
    }

    /// Inserts with `sql` into `public.<table>`. Returns the recipients of the rows for which
    /// `condition` is true.
    pub(crate) async fn insert(&self, table: &str, sql: &str, condition: &str) -> Vec<Seen> {
        self.run(sql).await;
        let relation = self.relation(table).await;
        let images = self.images(&relation, condition).await;
        self.seen(
            &relation,
            images
                .into_iter()
                .map(|new| RowChange::Insert { new })
                .collect(),
        )
        .await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// The channels that received a change, by payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) rows: BTreeSet<u32>,
    pub(crate) refused: BTreeMap<u32, &'static str>,
    pub(crate) unanswered: BTreeMap<u32, String>,
}

/// Returns the expected result if these channels receive the row and no other channel receives
/// anything.
pub(crate) fn rows(channels: &[u32]) -> Seen {
    Seen {
        rows: channels.iter().copied().collect(),
        ..Seen::default()
    }
}

/// The first transaction id of a cluster, which every snapshot sees.
const FIRST_XID: u32 = 3;

/// Returns a transaction with this change. Every snapshot sees it.
pub(crate) fn transaction(relation: &Arc<Relation>, row: RowChange) -> Arc<ChangeTransaction> {
    transaction_with_xid(FIRST_XID, relation, row)
}

/// Returns a transaction with this id and this change.
pub(crate) fn transaction_with_xid(
    xid: u32,
    relation: &Arc<Relation>,
    row: RowChange,
) -> Arc<ChangeTransaction> {
    let relation = Arc::clone(relation);
    let changes = vec![ChangeEvent { relation, row }];
    Arc::new(ChangeTransaction::whole(xid, changes))
}

/// Returns the old image under the default replica identity, in which only the key has values.
pub(crate) fn key_image(relation: &Relation, row: &Row) -> OldRow {
    OldRow::Key(Row(relation
        .columns
        .iter()
        .zip(&row.0)
        .map(|(column, value)| {
            if column.is_identity {
                value.clone()
            } else {
                ColumnValue::Null
            }
        })
        .collect()))
}

/// Returns a configuration with this number of random cases. The cases are the same in each run, so
/// that failures are reproducible. With `PROPTEST_CASES`, the number is that value and the cases
/// differ in each run.
pub(crate) fn cases(ordinary: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    use rapport::config::source::{ProcessEnvironment, Source as _};

    let asked = ProcessEnvironment
        .get("PROPTEST_CASES")
        .and_then(|cases| cases.parse().ok());
    Config {
        cases: asked.unwrap_or(ordinary),
        rng_seed: asked.map_or(RngSeed::Fixed(1), |_| RngSeed::Random),
        failure_persistence: None,
        ..Config::default()
    }
}

/// Returns conditions built from `atoms`, `depth` levels deep and with about `size` parts.
pub(crate) fn combined(
    atoms: impl Strategy<Value = &'static str> + 'static,
    depth: u32,
    size: u32,
) -> impl Strategy<Value = String> {
    atoms
        .prop_map(str::to_owned)
        .prop_recursive(depth, size, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) and ({b})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) or ({b})")),
                inner.clone().prop_map(|a| format!("not ({a})")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(a, b, c)| format!("case when {a} then {b} else {c} end")),
            ]
        })
}
