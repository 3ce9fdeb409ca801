"""The sandbox shows, over HTTP, every fact about Fivetran's REST API that this project depends on."""
