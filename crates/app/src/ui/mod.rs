//! What a browser is given: pages, message fragments and the files that belong to them.
//!
//! Page handlers fill the view structs of [`view`] and call a function of [`pages`]; the fan-out
//! calls [`markdown::render`] once per message. Nothing here reads a request, a database or a
//! clock, and nothing here decides who may see what: a view holds only what its reader may see.

pub mod assets;
pub mod markdown;
pub mod money;
pub mod pages;
pub mod runs;
pub mod timeline;
pub mod view;

#[cfg(test)]
mod tests;

/// The `content-security-policy` of every page.
///
/// No inline script and no inline style: what a message could smuggle past the sanitiser still
/// would not run. HTML reaches the document only through the one Trusted Types policy that the
/// script defines.
pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; manifest-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types convene";
