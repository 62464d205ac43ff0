//! Running the server in production: health checks, service managers, secrets in files, the forms
//! in which the schema can be applied, and the documents and files for deployments.

mod documents;
mod files;
mod health;
mod least_rights;
mod sql_files;
mod troubleshooting;
