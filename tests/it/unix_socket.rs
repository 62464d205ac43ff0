//! All connections of the server to the database work over a Unix socket.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::chat_server::Person;
use crate::support::database::{install_demonstration, own_cluster_with};
use crate::support::whole_server::{WholeServer, next_event};

#[tokio::test]
async fn messages_are_delivered_if_the_database_listens_on_a_unix_socket() {
    // PostgreSQL resolves a relative directory against its data directory.
    let cluster = own_cluster_with(&[("unix_socket_directories", ".")]).await;
    let over_tcp = cluster.url_for("postgres");
    install_demonstration(&over_tcp).await;
    let (login, _) = over_tcp.rsplit_once('@').unwrap();
    let directory = cluster.directory().join("postgres");
    let directory = directory.to_str().unwrap();

    // libpq ignores sslmode on a Unix socket, because it has no TLS.
    for sslmode in ["disable", "prefer", "require", "verify-full"] {
        let url = format!(
            "{login}@/postgres?host={directory}&port={}&sslmode={sslmode}",
            cluster.port()
        );
        let output = Command::new(env!("CARGO_BIN_EXE_rapport"))
            .arg("doctor")
            .env("DATABASE_URL", &url)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{sslmode}: {report}");

        if sslmode == "require" {
            let server = WholeServer::start(&url, &[]).await.ready().await;
            let conversation = server.open(Person::Ana, Person::Ben).await;
            let topic = format!("user:{}", Person::Ben.id());
            let mut ben = server.listen(Person::Ben, &topic).await;
            server.say(Person::Ana, &conversation, "by a socket").await;
            let updated = next_event(&mut ben, "conversation.updated").await;
            assert_eq!(updated["conversation_id"], conversation.as_str());
        }
    }
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}
