//! `rapport health`, and the reports to systemd.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::support::chaos::ChaosProxy;
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::process::{Process, free_port, rapport, run, text};
use crate::support::token::JWT_SECRET;

/// Runs `rapport health` and returns its exit code, output and error.
async fn health(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let arguments = [&["health"], arguments].concat();
    let output = run(rapport(&arguments).envs(variables.iter().copied())).await;
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test]
async fn health_needs_no_setting_but_the_address() {
    let database = TestDatabase::new().await;
    let (proxy, through) = ChaosProxy::before(database.url()).await;
    let server = Process::start(&through, &[]).await;
    let port = server.address.port().to_string();
    // Either the flag or the variables suffice. In a container, both commands have the variable
    // with the address.
    let everywhere = ("RAPPORT_SERVER_ADDRESS", "0.0.0.0");
    for (arguments, variables) in [
        (&["--port", &port][..], &[][..]),
        (
            &[][..],
            &[("RAPPORT_SERVER_PORT", port.as_str()), everywhere][..],
        ),
    ] {
        let (code, output, error) = health(arguments, variables).await;
        assert_eq!(
            (code, output.as_str()),
            (0, "{\"status\":\"ok\"}\n"),
            "{error}"
        );
    }
    let (code, output, _) = health(&["--ready", "--port", &port], &[]).await;
    assert_eq!(code, 0);
    assert!(output.contains(r#""status":"ready""#), "{output}");

    // Without the database, the process is still alive.
    proxy.refuse(true);
    proxy.cut();
    let error = eventually("the server is no longer ready", async || {
        let (code, _, error) = health(&["--ready", "--port", &port], &[]).await;
        (code == 1).then_some(error)
    })
    .await;
    assert!(
        error.contains("responded with 503 Service Unavailable") && error.contains("not_ready"),
        "{error}"
    );
    assert_eq!(health(&["--port", &port], &[]).await.0, 0);
    server.stop().await;
    let (code, _, error) = health(&["--port", &port], &[]).await;
    assert_eq!(code, 1);
    assert!(error.contains("No connection to 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn health_fails_if_the_server_does_not_respond() {
    // Connections are accepted by the kernel, but no program reads them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let (code, _, error) = health(&["--port", &port], &[]).await;
    assert_eq!(code, 1);
    assert!(error.contains("did not respond within 2 s"), "{error}");
    let (code, _, error) = health(&["--port", "0"], &[]).await;
    assert_eq!(code, 1);
    assert!(error.contains("Name it with --port"), "{error}");
}

#[tokio::test]
async fn systemd_learns_of_start_life_and_stop() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut server = rapport(&["serve", "--port", &free_port().to_string()])
        .env("DATABASE_URL", database.url())
        .env("SUPABASE_JWT_SECRET", JWT_SECRET)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .spawn()
        .unwrap();
    let pid = server.id().unwrap().to_string();
    // Reading blocks a thread of its own, so the test's runtime can wait for the process.
    let read = tokio::task::spawn_blocking(move || {
        let next = || {
            let mut buffer = [0; 1024];
            let length = manager.recv(&mut buffer).expect("a report within 30 s");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let started = next();
        assert!(started.contains("READY=1"), "{started}");
        assert!(
            started.contains("STATUS=Listening on 127.0.0.1:"),
            "{started}"
        );
        for _ in 0..3 {
            assert_eq!(next().trim(), "WATCHDOG=1");
        }
        let sent = std::process::Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status();
        assert!(sent.unwrap().success());
        loop {
            let report = next();
            if report.contains("STOPPING=1") {
                break;
            }
            assert_eq!(report.trim(), "WATCHDOG=1");
        }
    });
    read.await.unwrap();
    assert!(server.wait().await.unwrap().success());
}
