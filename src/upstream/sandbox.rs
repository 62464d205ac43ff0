//! Separates the pages of services from those of this server. Pure: no I/O.
//!
//! To a browser, everything under one host is one origin. Without this, a script in an uploaded
//! file would act as the user who opens the file: it could use the session cookie of the chat and
//! what other pages of the origin store. In a sandbox, a page has an origin of its own.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};

use super::route::Service;

/// The policy for everything but functions. Nothing there is meant to run scripts: Supabase itself
/// serves uploaded HTML as plain text.
const NO_SCRIPTS: &str = "sandbox";

/// The policy for functions, which may be pages. They may run scripts, submit forms, open other
/// pages and start downloads, but not in the origin of this server.
const OWN_ORIGIN: &str = "sandbox allow-downloads allow-forms allow-modals allow-popups \
    allow-popups-to-escape-sandbox allow-scripts";

/// Puts a response into a sandbox, which affects only responses that a browser opens as a page. The
/// policy is added to all responses except PDF files, because the server cannot know which ones
/// will be opened: a browser may open a response that it has cached as an image.
pub(super) fn add(headers: &mut HeaderMap, service: Service) {
    // The service decides the media type. Without this header, a browser could treat a text as a
    // page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !is_pdf(headers) {
        let policy = match service {
            Service::Functions => OWN_ORIGIN,
            Service::Auth | Service::Rest | Service::Graphql | Service::Storage => NO_SCRIPTS,
        };
        // Browsers enforce all policies, so a policy of the service cannot relax this one.
        headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
}

/// Returns whether the response is a PDF and nothing else. Chromium does not display a PDF in a
/// sandbox, and the viewers of browsers run its scripts outside the page's origin. If there are
/// several media types, a browser may choose another one, so the response does not count as a PDF.
fn is_pdf(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_pdf = types
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"application/pdf"));
    is_pdf && types.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_a_service_has_an_origin_of_its_own() {
        // (service, media types, scripts of a page run, whether it is in a sandbox)
        let cases: [(Service, &[&'static str], bool, bool); 11] = [
            (Service::Storage, &["text/html"], false, true),
            (Service::Storage, &["image/svg+xml"], false, true),
            (Service::Storage, &["text/xml"], false, true),
            (Service::Storage, &["image/png"], false, true),
            (Service::Storage, &[], false, true),
            (Service::Rest, &["text/html"], false, true),
            (Service::Functions, &["text/html"], true, true),
            (Service::Storage, &["application/pdf"], false, false),
            (
                Service::Storage,
                &["application/pdf, text/html"],
                false,
                true,
            ),
            (
                Service::Storage,
                &["application/pdf", "text/html"],
                false,
                true,
            ),
            (Service::Storage, &["application/pdf;x"], false, true),
        ];
        for (service, types, runs_scripts, is_in_sandbox) in cases {
            let mut headers = HeaderMap::new();
            for value in types {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            add(&mut headers, service);
            let policy = headers
                .get(CONTENT_SECURITY_POLICY)
                .map(|value| value.to_str().unwrap());
            let flags: Vec<&str> = policy.unwrap_or_default().split_whitespace().collect();
            let case = format!("{service:?} {types:?} {policy:?}");
            assert_eq!(flags.first() == Some(&"sandbox"), is_in_sandbox, "{case}");
            assert_eq!(flags.contains(&"allow-scripts"), runs_scripts, "{case}");
            assert!(!flags.contains(&"allow-same-origin"), "{case}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
    }

    #[test]
    fn a_policy_of_the_service_stays() {
        let mut headers = HeaderMap::new();
        let own = HeaderValue::from_static("sandbox allow-same-origin allow-scripts");
        headers.insert(CONTENT_SECURITY_POLICY, own.clone());
        add(&mut headers, Service::Functions);
        let policies: Vec<_> = headers.get_all(CONTENT_SECURITY_POLICY).iter().collect();
        assert_eq!(policies, [&own, &HeaderValue::from_static(OWN_ORIGIN)]);
    }
}
