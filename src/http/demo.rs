//! Serves `/demo`, the demonstration page. It is a folder of files that are embedded in the program
//! (`assets/demo`).
//!
//! The page's content security policy allows it to load only these files and to send HTTP requests
//! only to this server.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::conditional::{matches_any, tag_of};
use super::error::ApiError;
use super::openapi::document::OPERATIONS;
use super::openapi::schema::text;
use super::openapi::{ApiRouter, Operation, input};
use super::responses::SharedBody;
use crate::error_code::ErrorCode;

/// The path of the page. It ends with a slash so that relative addresses in the page work.
const BASE: &str = "/demo/";

/// The file that is sent for a folder.
const INDEX: &str = "index.html";

/// The suffix of compressed files. Their addresses do not contain it.
const COMPRESSED: &str = ".gz";

/// The folder in which Vite stores files whose names contain a hash of their content.
const HASHED: &str = "assets/";

/// The page's policy (Content Security Policy 3). `ws:` and `wss:` allow sockets to any host,
/// because not every browser includes sockets to the page's own host in `'self'`. Component
/// libraries position elements by `style` attributes; style elements and foreign stylesheets remain
/// forbidden. Images that the page creates have `data:` and `blob:` addresses, and workers have
/// `blob:` addresses if a library creates them without a file.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    style-src-attr 'unsafe-inline'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; \
    font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The embedded files. `build.rs` writes the path in the folder and the content of each.
static EMBEDDED: Files = include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));

/// Files as a build embeds them: path in the folder and content, sorted by path.
pub type Files = &'static [(&'static str, &'static [u8])];

/// Returns the files that are embedded in this program. There are none if the folder was empty when
/// the program was built.
pub fn embedded() -> Files {
    EMBEDDED
}

/// Returns the routes of the page that consists of these files. Without files, the router is empty.
pub fn routes<S: Clone + Send + Sync + 'static>(files: Files) -> ApiRouter<S> {
    if files.is_empty() {
        return ApiRouter::new();
    }
    let page = Page::new(files);
    ApiRouter::new()
        .get(
            "/demo",
            async || (StatusCode::PERMANENT_REDIRECT, [(LOCATION, BASE)]),
            Operation::bare("find_demo", OPERATIONS, "The demonstration page")
                .answers_nothing(308, "Redirects to `/demo/`."),
        )
        .get(BASE, show_index, file("show_demo"))
        .get(
            "/demo/{*path}",
            show_file,
            file("show_demo_file").path(input("path", text(), "The file.")),
        )
        .map(|routes| routes.with_state(page))
}

fn file(id: &'static str) -> Operation {
    Operation::bare(id, OPERATIONS, "A file of the demonstration page")
        .details("Available if `server.demo_page` is on.")
        .answers_as(200, "The file.", "*/*", text())
        .answers_nothing(304, "The cached copy is still current.")
        .refuses(&[ErrorCode::NotFound])
}

async fn show_index(State(page): State<Page>, headers: HeaderMap) -> Response {
    page.respond("", &headers)
}

async fn show_file(
    State(page): State<Page>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    page.respond(&path, &headers)
}

/// The files by their address. Clones are cheap.
#[derive(Clone)]
struct Page(Arc<HashMap<&'static str, File>>);

struct File {
    content: &'static [u8],
    media_type: &'static str,
    is_compressed: bool,
    caching: &'static str,
    tag: HeaderValue,
}

impl Page {
    fn new(files: Files) -> Self {
        let entry = |(path, content): &(&'static str, &'static [u8])| {
            let plain = path.strip_suffix(COMPRESSED);
            let name = plain.unwrap_or(path);
            let file = File {
                content,
                media_type: media_type(name),
                is_compressed: plain.is_some(),
                caching: caching(name),
                tag: tag_of(content).unwrap_or_else(|| HeaderValue::from_static("\"\"")),
            };
            (name, file)
        };
        Self(Arc::new(files.iter().map(entry).collect()))
    }

    fn respond(&self, path: &str, headers: &HeaderMap) -> Response {
        let file = if path.is_empty() || path.ends_with('/') {
            self.0.get(format!("{path}{INDEX}").as_str())
        } else {
            self.0.get(path)
        };
        let Some(file) = file else {
            return ApiError::new(ErrorCode::NotFound).into_response();
        };
        let fixed: [(HeaderName, &str); 5] = [
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, file.caching),
        ];
        let known: Vec<_> = headers
            .get_all(IF_NONE_MATCH)
            .into_iter()
            .cloned()
            .collect();
        let tag = [(ETAG, file.tag.clone())];
        if matches_any(&file.tag, &known) {
            return (StatusCode::NOT_MODIFIED, fixed, tag).into_response();
        }
        let mut response = (fixed, tag, Extension(SharedBody), file.content).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.media_type));
        if file.is_compressed {
            // The file is sent compressed regardless of `Accept-Encoding`, because every browser
            // accepts gzip and RFC 9110, section 12.5.3, leaves the choice to the server.
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Returns the `Cache-Control` of a file. A file whose name contains a hash never changes. Under
/// other names, another version of the program may serve different files.
fn caching(path: &str) -> &'static str {
    if path.starts_with(HASHED) && has_hash(path) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    }
}

/// Returns whether a name contains a hash as Vite writes it: `name-XXXXXXXX.ending`, in base64url.
/// A hash without any capital letter or digit, which is one in a thousand, is mistaken for a word.
fn has_hash(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.split('.').next().unwrap_or(name).as_bytes();
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    // The hash may contain the separator, so its start follows from its length.
    stem.split_last_chunk::<8>().is_some_and(|(name, hash)| {
        name.len() > 1
            && name.ends_with(b"-")
            && hash.iter().all(is_letter)
            && (hash.iter()).any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    })
}

/// Returns the media type for the ending of the name. Because of `nosniff`, browsers refuse
/// scripts, styles and modules with a wrong type.
fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "mp3" => "audio/mpeg",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    const FILES: Files = &[
        ("assets/index-Ab3_-d9Z.js.gz", b"compressed"),
        ("assets/logo.svg", b"<svg/>"),
        ("gallery/index.html", b"gallery"),
        ("index.html.gz", b"index"),
    ];

    async fn get(files: Files, path: &str, known: &str) -> Response {
        let router = routes::<()>(files).into_parts().0;
        let request = Request::get(path).header(IF_NONE_MATCH, known);
        let request = request.body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap()
    }

    fn header(response: &Response, name: HeaderName) -> &str {
        response
            .headers()
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn files_have_their_type_coding_and_caching() {
        for (path, media_type, coding, caching) in [
            ("/demo/", "text/html; charset=utf-8", "gzip", "no-cache"),
            (
                "/demo/index.html",
                "text/html; charset=utf-8",
                "gzip",
                "no-cache",
            ),
            ("/demo/gallery/", "text/html; charset=utf-8", "", "no-cache"),
            (
                "/demo/assets/index-Ab3_-d9Z.js",
                "text/javascript; charset=utf-8",
                "gzip",
                "public, max-age=31536000, immutable",
            ),
            ("/demo/assets/logo.svg", "image/svg+xml", "", "no-cache"),
        ] {
            let response = get(FILES, path, "").await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(header(&response, CONTENT_TYPE), media_type, "{path}");
            assert_eq!(header(&response, CONTENT_ENCODING), coding, "{path}");
            assert_eq!(header(&response, CACHE_CONTROL), caching, "{path}");
            assert_eq!(header(&response, CONTENT_SECURITY_POLICY), POLICY);
            assert!(response.extensions().get::<SharedBody>().is_some());
            let tag = header(&response, ETAG).to_owned();
            let again = get(FILES, path, &tag).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
            assert_eq!(header(&again, ETAG), tag);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_in_the_folder_is_not_found() {
        for path in [
            "/demo/index.html.gz",
            "/demo/assets/",
            "/demo/gallery",
            "/demo/../Cargo.toml",
            "/demo/%2e%2e/Cargo.toml",
        ] {
            let response = get(FILES, path, "").await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let response = get(FILES, "/demo", "").await;
        assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
        assert_eq!(header(&response, LOCATION), "/demo/");
        for path in ["/demo", "/demo/", "/demo/index.html"] {
            let response = get(&[], path, "").await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn a_hash_is_distinguished_from_a_word() {
        for (path, expected) in [
            ("assets/index-Ab3_-d9Z.js", true),
            ("assets/index-Ab3_-d9Z.js.map", true),
            ("assets/a-b/x-DkX3h2a1.css", true),
            ("assets/index.js", false),
            ("assets/-Ab3_-d9Z.js", false),
            ("assets/emoji-data.json", false),
            ("assets/my-language.json", false),
        ] {
            assert_eq!(has_hash(path), expected, "{path}");
        }
    }
}
