#include "db_meters.h"

#include "metrics.h"

static struct metrics_counter commits = {
    .name = "database_commits_total",
    .help = "Transactions of the writer by their outcome.",
    .label = "outcome",
    .values = {"ok", "failed"},
};
static struct metrics_histogram commit_jobs_sizes = {
    .name = "database_commit_jobs",
    .help = "Writes that one transaction took together.",
    .scale = &metrics_sizes,
};
static struct metrics_histogram commit_durations = {
    .name = "database_commit_duration_seconds",
    .help = "Transactions from their begin to the end of their fsync.",
    .scale = &metrics_fast,
};

void db_meters_commit(bool ok, int64_t jobs, int64_t took_us)
{
    metrics_count(&commits, !ok);
    metrics_observe(&commit_jobs_sizes, 0, jobs);
    metrics_observe(&commit_durations, 0, took_us);
}

void db_meters_put(struct buf *out)
{
    metrics_put_counter(out, &commits);
    metrics_put_histogram(out, &commit_jobs_sizes);
    metrics_put_histogram(out, &commit_durations);
}
