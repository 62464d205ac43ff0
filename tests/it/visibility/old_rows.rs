//! The old row of an UPDATE, and which subscribers receive more of it than the primary key.

use std::sync::Arc;

use rapport::change::{OldRow, Relation, Row, RowChange};
use rapport::config::VisibilityConfig;
use rapport::visibility::{Payload, record};
use serde_json::{Value, json};

use super::bench::{Bench, key_image, strict, transaction, user};

const NOTES: &str = "
create table notes (id int primary key, owner uuid not null, slug text not null, body text);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = auth.uid());
create policy all_of_them on notes for select to anon using (true);
grant select on notes to authenticated, anon, service_role;
alter publication supabase_realtime add table notes;
";

/// Starts a bench with channels 1 and 2 of two users, 3 of a role whose policy shows every row, and
/// 4 of a role that bypasses row-level security.
async fn notes(config: VisibilityConfig, sql: &str) -> Bench {
    let bench = Bench::with(config, &format!("{NOTES}{sql}")).await;
    bench.watch_as_each("notes").await;
    bench
}

/// Returns two versions of a row, as the WAL contains them.
async fn versions(bench: &Bench, relation: &Relation, old: &str, new: &str) -> (Row, Row) {
    let mut images = Vec::new();
    for values in [old, new] {
        bench.run("delete from notes").await;
        bench
            .run(&format!("insert into notes values ({values})"))
            .await;
        images.push(bench.images(relation, "true").await.remove(0));
    }
    let new = images.remove(1);
    (images.remove(0), new)
}

/// Returns, for each change, the `old_record` of every channel that receives it.
async fn old_records(
    bench: &Bench,
    relation: &Arc<Relation>,
    changes: Vec<RowChange>,
) -> Vec<Vec<(u64, Value)>> {
    let mut told = vec![Vec::new(); changes.len()];
    let batch: Vec<_> = changes
        .into_iter()
        .map(|change| transaction(relation, change))
        .collect();
    for delivery in bench.resolve(&batch).await {
        let Payload::Row(columns, detail) = &delivery.payload else {
            panic!("expected a row: {delivery:?}");
        };
        let row = &batch[delivery.transaction].changes[0].row;
        let mut out = Vec::new();
        record::write_old_record(&mut out, row, columns, *detail);
        let record: Value = serde_json::from_slice(&out).unwrap();
        for recipient in &delivery.recipients {
            told[delivery.transaction].push((recipient.channel.0, record.clone()));
        }
    }
    for told in &mut told {
        told.sort_by_key(|(channel, _)| *channel);
    }
    told
}

fn full(old: Row, new: Row) -> RowChange {
    RowChange::Update {
        old: Some(OldRow::Full(old)),
        new,
    }
}

#[tokio::test]
async fn a_row_that_becomes_visible_does_not_show_its_earlier_version() {
    let bench = notes(strict(), "alter table notes replica identity full").await;
    let relation = bench.relation("notes").await;
    let theirs = format!("1, '{}', 'a', 'hush'", user(2));
    let own = format!("1, '{}', 'a', 'for you'", user(1));
    let own_before = format!("1, '{}', 'a', 'mine'", user(1));
    let (moved_old, moved_new) = versions(&bench, &relation, &theirs, &own).await;
    let (kept_old, kept_new) = versions(&bench, &relation, &own_before, &own).await;
    let asked = bench.metrics.asked_by_image.get();
    let told = old_records(
        &bench,
        &relation,
        vec![full(moved_old, moved_new), full(kept_old, kept_new)],
    )
    .await;
    let key = json!({ "id": 1 });
    let whole = |owner, body| json!({ "id": 1, "owner": user(owner), "slug": "a", "body": body });
    assert_eq!(
        told,
        [
            vec![(1, key), (3, whole(2, "hush")), (4, whole(2, "hush"))],
            vec![
                (1, whole(1, "mine")),
                (3, whole(1, "mine")),
                (4, whole(1, "mine"))
            ],
        ]
    );
    // Each of the two users is checked for both owners. The policy reads only the owner, so the
    // three images with the second owner are checked once.
    assert_eq!(bench.metrics.asked_by_image.get() - asked, 4);
}

#[tokio::test]
async fn an_old_row_with_equal_values_is_not_checked_separately() {
    let bench = notes(strict(), "alter table notes replica identity full").await;
    let relation = bench.relation("notes").await;
    let old = format!("1, '{}', 'a', 'before'", user(1));
    let new = format!("1, '{}', 'a', 'after'", user(1));
    let (old, new) = versions(&bench, &relation, &old, &new).await;
    let asked = bench.metrics.asked_by_image.get();
    let told = old_records(&bench, &relation, vec![full(old, new)]).await;
    assert_eq!(told[0].len(), 3);
    assert_eq!(told[0][0].1["body"], "before");
    // Each of the two users is checked once.
    assert_eq!(bench.metrics.asked_by_image.get() - asked, 2);
}

#[tokio::test]
async fn a_setting_sends_old_rows_unchecked() {
    let config = VisibilityConfig {
        tables_with_unchecked_old_rows: vec!["public.notes".to_owned()],
        ..strict()
    };
    let bench = notes(config, "alter table notes replica identity full").await;
    let relation = bench.relation("notes").await;
    let theirs = format!("1, '{}', 'a', 'hush'", user(2));
    let own = format!("1, '{}', 'a', 'for you'", user(1));
    let (old, new) = versions(&bench, &relation, &theirs, &own).await;
    let told = old_records(&bench, &relation, vec![full(old, new)]).await;
    assert_eq!(told[0][0].0, 1);
    assert_eq!(told[0][0].1["body"], "hush");
}

#[tokio::test]
async fn old_rows_of_an_index_identity_are_sent_if_they_can_be_checked() {
    for (index, policy, expected) in [
        // The policy reads only columns that the index contains.
        (
            "slug, owner",
            "",
            json!({ "owner": user(1), "slug": "old" }),
        ),
        // The policy reads a column that the WAL does not contain.
        (
            "slug, owner",
            "alter policy own on notes using (owner = auth.uid() and body is not null)",
            json!({}),
        ),
        // The primary key is always shown.
        (
            "slug, id",
            "alter policy own on notes using (owner = auth.uid() and body is not null)",
            json!({ "id": 1 }),
        ),
    ] {
        let identity = format!(
            "create unique index by_slug on notes ({index});
             alter table notes replica identity using index by_slug; {policy}"
        );
        let bench = notes(strict(), &identity).await;
        let relation = bench.relation("notes").await;
        let old = format!("1, '{}', 'old', 'x'", user(1));
        let new = format!("1, '{}', 'new', 'x'", user(1));
        let (old, new) = versions(&bench, &relation, &old, &new).await;
        let change = RowChange::Update {
            old: Some(key_image(&relation, &old)),
            new: new.clone(),
        };
        // If the columns of the identity have not changed, the WAL contains no old row. Its values
        // in these columns are those of the new row.
        let unchanged = RowChange::Update { old: None, new };
        let told = old_records(&bench, &relation, vec![change, unchanged]).await;
        assert_eq!(told[0][0], (1, expected), "{index} {policy}");
        assert_eq!(told[1][0].1["slug"], "new", "{index} {policy}");
    }
}

#[tokio::test]
async fn the_default_identity_is_not_checked() {
    let bench = notes(strict(), "").await;
    let relation = bench.relation("notes").await;
    let old = format!("1, '{}', 'a', 'x'", user(2));
    let new = format!("2, '{}', 'a', 'x'", user(1));
    let (old, new) = versions(&bench, &relation, &old, &new).await;
    let change = RowChange::Update {
        old: Some(key_image(&relation, &old)),
        new,
    };
    let asked = bench.metrics.asked_by_image.get();
    let told = old_records(&bench, &relation, vec![change]).await;
    assert_eq!(told[0][0], (1, json!({ "id": 1 })));
    assert_eq!(bench.metrics.asked_by_image.get() - asked, 2);
}
