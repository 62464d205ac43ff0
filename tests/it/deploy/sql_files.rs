//! The schema as SQL files: `rapport migrate --sql --parts` and `rapport migrate --supabase`.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::schema_install::{dump, forbid_ddl, ledger, migrated, run};
use crate::supabase::{ACCOUNTS, PRIVATE_CHANNELS, Project};
use crate::support::database::{TestDatabase, connect, own_cluster};
use crate::support::process;
use crate::support::process::{rapport, text};

/// How the SQL files are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Pasted into an editor.
    Parts,
    /// By the Supabase CLI, which runs each file in a transaction.
    Supabase,
}

impl Form {
    const ALL: [Self; 2] = [Self::Parts, Self::Supabase];

    /// Writes the files to `directory`, without any setting. Returns the paths that the command
    /// prints, which are the new files.
    async fn write(self, directory: &Path) -> Vec<PathBuf> {
        let directory = directory.display().to_string();
        let arguments: &[&str] = match self {
            Self::Parts => &["migrate", "--sql", "--parts", &directory],
            Self::Supabase => &["migrate", "--supabase", &directory],
        };
        let output = process::run(rapport(arguments).env_remove("DATABASE_URL")).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        if printed == "The files are up to date.\n" {
            return Vec::new();
        }
        printed.lines().map(PathBuf::from).collect()
    }

    async fn apply(self, files: &[PathBuf], url: &str) -> Result<(), String> {
        for file in files {
            let mut arguments = vec!["-Xq", "-v", "ON_ERROR_STOP=1"];
            if self == Self::Supabase {
                arguments.push("-1");
            }
            let file = file.display().to_string();
            arguments.extend(["-f", &file, url]);
            let arguments = arguments.into_iter().map(str::to_owned).collect();
            run("psql", arguments).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn files_and_program_give_the_same_result_in_either_order() {
    let by_program = TestDatabase::bare().await;
    migrated(by_program.url()).await;
    let expected = (ledger(by_program.url()).await, dump(by_program.url()).await);
    for form in Form::ALL {
        let directory = tempfile::tempdir().unwrap();
        let files = form.write(directory.path()).await;
        assert!(files.len() >= 2, "{files:?}");
        let by_files = TestDatabase::bare().await;
        form.apply(&files, by_files.url()).await.unwrap();
        let result = (ledger(by_files.url()).await, dump(by_files.url()).await);
        assert_eq!(result, expected, "{form:?}");
        forbid_ddl(by_files.url()).await;
        let after = migrated(by_files.url()).await;
        assert_eq!((after.migrations, after.definitions), (vec![], vec![]));

        // In the opposite order, the files find nothing to install.
        let migrated_first = TestDatabase::bare().await;
        migrated(migrated_first.url()).await;
        let before = applied_at(migrated_first.url()).await;
        form.apply(&files, migrated_first.url()).await.unwrap();
        // The files can be run again, as when a paste into an editor is repeated.
        form.apply(&files, migrated_first.url()).await.unwrap();
        assert_eq!(applied_at(migrated_first.url()).await, before);
        assert_eq!(dump(migrated_first.url()).await, expected.1);
    }
}

#[tokio::test]
async fn a_part_of_the_files_installs_nothing() {
    for form in Form::ALL {
        let directory = tempfile::tempdir().unwrap();
        let files = form.write(directory.path()).await;
        let (last, others) = files.split_last().unwrap();
        let database = TestDatabase::bare().await;
        form.apply(others, database.url()).await.unwrap();
        let client = connect(database.url()).await;
        let tables: Vec<String> = client
            .query(
                "select relname::text from pg_class
                 where relkind = 'r' and relnamespace in (
                   select oid from pg_namespace where nspname in ('public', 'chat', 'realtime', 'auth'))",
                &[],
            )
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(tables, ["install_parts"]);

        // The program finishes the installation, and the last file then finds nothing to install.
        let installed = migrated(database.url()).await;
        assert!(!installed.migrations.is_empty() && !installed.definitions.is_empty());
        let before = applied_at(database.url()).await;
        form.apply(std::slice::from_ref(last), database.url())
            .await
            .unwrap();
        assert_eq!(applied_at(database.url()).await, before);
        let left = client
            .query_one("select to_regclass('chat.install_parts')::text", &[])
            .await
            .unwrap();
        assert_eq!(left.get::<_, Option<String>>(0), None);
    }
}

#[tokio::test]
async fn the_last_file_refuses_a_missing_or_changed_text() {
    let directory = tempfile::tempdir().unwrap();
    let files = Form::Parts.write(directory.path()).await;
    let (last, others) = files.split_last().unwrap();
    let database = TestDatabase::bare().await;
    let apply = async |files: &[PathBuf]| Form::Parts.apply(files, database.url()).await;
    let error = apply(std::slice::from_ref(last)).await.unwrap_err();
    assert!(
        error.contains("The text of migrations/0001_foundation.sql is missing"),
        "{error}"
    );

    // A role that could write to the table must not be able to choose what the installer runs.
    apply(others).await.unwrap();
    let client = connect(database.url()).await;
    client
        .batch_execute(
            "update chat.install_parts set content = content || 'create role intruder superuser;'
             where path = 'migrations/0002_settings_and_host.sql'",
        )
        .await
        .unwrap();
    let error = apply(std::slice::from_ref(last)).await.unwrap_err();
    assert!(
        error.contains("migrations/0002_settings_and_host.sql is missing or was changed"),
        "{error}"
    );
    let roles = client
        .query("select from pg_roles where rolname = 'intruder'", &[])
        .await
        .unwrap();
    assert!(roles.is_empty());
    // Nothing was installed, and all files in order succeed.
    assert!(
        client
            .query("select from chat.schema_migrations", &[])
            .await
            .is_err(),
        "the ledger must not exist"
    );
    apply(&files).await.unwrap();
    assert_eq!(
        migrated(database.url()).await.migrations,
        Vec::<String>::new()
    );
}

/// The owner of the schema could create `chat.install_parts` with a trigger that would run as the
/// installer.
#[tokio::test]
async fn every_file_refuses_a_schema_of_another_role() {
    let cluster = own_cluster().await;
    let url = &cluster.url_for("postgres");
    let client = connect(url).await;
    client
        .batch_execute(
            "create role stranger;
             create schema chat authorization stranger;
             create table chat.install_parts (path text primary key, content text);
             create function chat.seize() returns trigger language plpgsql as $$
             begin
               alter role stranger superuser;
               return new;
             end $$;
             create trigger seize before insert on chat.install_parts
               for each row execute function chat.seize();",
        )
        .await
        .unwrap();
    for form in Form::ALL {
        let directory = tempfile::tempdir().unwrap();
        for file in form.write(directory.path()).await {
            let error = form.apply(&[file], url).await.unwrap_err();
            assert!(
                error.contains("The schema chat belongs to role stranger"),
                "{error}"
            );
        }
    }
    let row = client
        .query_one(
            "select rolsuper from pg_roles where rolname = 'stranger'",
            &[],
        )
        .await
        .unwrap();
    assert!(!row.get::<_, bool>(0));
    drop(client);
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}

#[tokio::test]
async fn default_privileges_give_nobody_rights_on_the_stored_files() {
    let cluster = own_cluster().await;
    let url = &cluster.url_for("postgres");
    let client = connect(url).await;
    client
        .batch_execute(
            "create role anyone;
             alter default privileges grant usage on schemas to anyone;
             alter default privileges grant all on tables to anyone, public;
             create table public.control ();",
        )
        .await
        .unwrap();
    for form in Form::ALL {
        let directory = tempfile::tempdir().unwrap();
        let first = form.write(directory.path()).await.remove(0);
        form.apply(&[first], url).await.unwrap();
        let row = client
            .query_one(
                "select has_table_privilege('anyone', 'chat.install_parts', 'TRIGGER'),
                   has_table_privilege('anyone', 'chat.install_parts', 'INSERT'),
                   has_table_privilege('anyone', 'public.control', 'TRIGGER')",
                &[],
            )
            .await
            .unwrap();
        let rights = [0, 1, 2].map(|column| row.get::<_, bool>(column));
        assert_eq!(rights, [false, false, true]);
        client
            .batch_execute("drop table chat.install_parts; drop schema chat cascade")
            .await
            .unwrap();
    }
    drop(client);
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}

#[tokio::test]
async fn files_are_applied_to_a_hosted_project_without_superuser_rights() {
    for form in Form::ALL {
        let project = Project::hosted().await;
        project.run_as_superuser(ACCOUNTS).await;
        let directory = tempfile::tempdir().unwrap();
        let files = form.write(directory.path()).await;
        form.apply(&files, &project.url).await.unwrap();
        project.run_as_superuser(PRIVATE_CHANNELS).await;
        project.doctor().await;
        let applied = project.migrate().await;
        assert!(
            applied.starts_with("The schema is up to date."),
            "{applied}"
        );
        project.end().await;
    }
}

#[tokio::test]
async fn supabase_migrations_are_added_to_and_never_rewritten() {
    let directory = tempfile::tempdir().unwrap();
    // A migration of the application, later than the present.
    let own = directory.path().join("29990101000000_own.sql");
    fs::write(&own, "select 1;\n").unwrap();
    let files = Form::Supabase.write(directory.path()).await;
    let names: Vec<_> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names[0], "29990101000001_rapport_1.sql");
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(
        Form::Supabase.write(directory.path()).await,
        Vec::<PathBuf>::new()
    );

    // Makes the files those of an earlier release, in which one definition had another text.
    let path = "definitions/chat/10_refusals.sql";
    let holder = files
        .iter()
        .find(|file| fs::read_to_string(file).unwrap().contains(path))
        .unwrap();
    let earlier = fs::read_to_string(holder).unwrap();
    let line = earlier
        .lines()
        .find(|line| line.starts_with(&format!("-- rapport-file: {path} ")));
    let earlier = earlier.replace(line.unwrap(), &format!("-- rapport-file: {path} earlier"));
    fs::write(holder, &earlier).unwrap();
    let added = Form::Supabase.write(directory.path()).await;
    assert_eq!(added.len(), 1);
    let name = added[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        name.ends_with(&format!("_rapport_{}.sql", files.len() + 1)),
        "{name}"
    );
    assert!(name > names[names.len() - 1], "{name}");
    assert_eq!(fs::read_to_string(holder).unwrap(), earlier);
    let text = fs::read_to_string(&added[0]).unwrap();
    assert_eq!(text.matches("\n-- rapport-file: ").count(), 1);
}

#[tokio::test]
async fn the_files_of_two_releases_give_the_schema_of_the_second() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Form::Supabase.write(directory.path()).await;
    // Makes the files those of an earlier release, in which one definition had another text.
    let path = "sql/definitions/chat/10_refusals.sql";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(path).unwrap();
    let earlier = format!("{text}-- earlier\n");
    let sum = |text: &str| -> String {
        let sum = Sha256::digest(text);
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let mut count = 0;
    for file in &files {
        let written = fs::read_to_string(file).unwrap();
        count += written.matches(&text).count();
        let written = written.replace(&text, &earlier);
        fs::write(file, written.replace(&sum(&text), &sum(&earlier))).unwrap();
    }
    assert_eq!(count, 1);
    let in_place = TestDatabase::bare().await;
    Form::Supabase.apply(&files, in_place.url()).await.unwrap();

    let added = Form::Supabase.write(directory.path()).await;
    assert_eq!(added.len(), 1);
    Form::Supabase.apply(&added, in_place.url()).await.unwrap();
    let by_program = TestDatabase::bare().await;
    migrated(by_program.url()).await;
    let expected = (ledger(by_program.url()).await, dump(by_program.url()).await);
    let result = (ledger(in_place.url()).await, dump(in_place.url()).await);
    assert_eq!(result, expected);

    // A new database runs the files of both releases.
    files.extend(added);
    let fresh = TestDatabase::bare().await;
    Form::Supabase.apply(&files, fresh.url()).await.unwrap();
    let result = (ledger(fresh.url()).await, dump(fresh.url()).await);
    assert_eq!(result, expected);
}

#[tokio::test]
async fn files_in_supabase_migrations_leave_a_newer_schema_alone() {
    let database = TestDatabase::bare().await;
    migrated(database.url()).await;
    let client = connect(database.url()).await;
    client
        .batch_execute(
            "insert into chat.schema_migrations (version, name, checksum) values (9999, 'later', 'x');
             update chat.schema_definitions set checksum = 'later'",
        )
        .await
        .unwrap();
    let before = applied_at(database.url()).await;
    for (form, is_refused) in [(Form::Supabase, false), (Form::Parts, true)] {
        let directory = tempfile::tempdir().unwrap();
        let files = form.write(directory.path()).await;
        let result = form.apply(&files, database.url()).await;
        assert_eq!(result.is_err(), is_refused, "{result:?}");
        if let Err(error) = result {
            assert!(error.contains("The schema is at version 9999"), "{error}");
        }
        assert_eq!(applied_at(database.url()).await, before);
    }
}

/// Returns when each file was applied.
async fn applied_at(url: &str) -> Vec<(String, String)> {
    let rows = connect(url)
        .await
        .query(
            "select version::text, applied_at::text from chat.schema_migrations
             union all
             select path, applied_at::text from chat.schema_definitions
             order by 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
