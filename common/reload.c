#include "reload.h"

#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "mem.h"

enum { PROBLEMS_MAX_BYTES = 64 * 1024, LINES_MAX = 50, CHANGES_MAX_BYTES = 1 << 20 };

static unsigned count_lines(const char *text)
{
    unsigned count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

/* A file that stays wrong is named anew by each SIGHUP, but not without end (somebody may send them by the
 * clock); what is wrong in another way always is. */
static void refuse(const char *problems)
{
    static char *named; /* by the last refusal */
    enum log_level level = named && strcmp(named, problems) == 0 ? LOG_REPEATED(LOG_ERROR) : LOG_ERROR;
    unsigned count = count_lines(problems), shown = 0;
    log_event(level, "service.reload_refused", LOG_FIELDS(LOG_NUMBER("problems", count)),
              "❌ SIGHUP : réglages refusés, rien ne change (%u problème%s)", count, count == 1 ? "" : "s");
    CLEANUP(free_text) char *lines = mem_text(problems);
    char *rest = NULL;
    for (char *line = strtok_r(lines, "\n", &rest); line && shown < LINES_MAX;
         line = strtok_r(NULL, "\n", &rest), shown++)
        log_event(level, "setting.refused", LOG_FIELDS(LOG_TEXT("reason", line)), "❌ %s", line);
    if (count > shown)
        log_event(level, "setting.refused", NULL, "❌ … et %u autres : --check-config les nomme",
                  count - shown);
    free_text(&named);
    named = mem_text(problems);
}

static void say(const char *taken, const char *restart)
{
    if (!*taken && !*restart) {
        log_event(LOG_REPEATED(LOG_INFO), "service.reloaded", NULL,
                  "🔄 SIGHUP : réglages relus, rien n'a changé");
        return;
    }
    log_event(*taken ? LOG_INFO : LOG_REPEATED(LOG_INFO), "service.reloaded",
              LOG_FIELDS(LOG_TEXT("taken", taken), LOG_TEXT("needsRestart", restart)),
              "🔄 SIGHUP : réglages relus%s%s%s%s",
              *taken ? ". Pris en compte : " : ", rien n'est pris en compte", taken,
              *restart ? ". Redémarrage nécessaire : " : "", restart);
}

static void take(struct reload *reload, struct config *wanted, struct tokens *fresh)
{
    CLEANUP(buf_done) struct buf taken, restart;
    buf_init(&taken, CHANGES_MAX_BYTES);
    buf_init(&restart, CHANGES_MAX_BYTES);
    bool same_file = config_is(wanted, "API_TOKENS_FILE", config_text(reload->config, "API_TOKENS_FILE"));
    config_take_live(reload->config, wanted, &taken, &restart);
    if (reload->tokens && fresh && same_file && tokens_take(reload->tokens, fresh))
        buf_format(&taken, "%sAPI_TOKENS_FILE (jetons : %u → %u)", taken.len ? ", " : "", tokens_count(fresh),
                   tokens_count(reload->tokens));
    reload->changed(reload->owner, reload->config);

    /* Said at the more talkative of both levels: the line is the answer to who sent the signal. */
    const char *format = config_text(reload->config, "LOG_FORMAT");
    const char *level = config_text(reload->config, "LOG_LEVEL");
    bool said = log_enabled(LOG_INFO);
    if (said)
        say(buf_get(&taken), buf_get(&restart));
    log_change(format, level);
    if (!said)
        say(buf_get(&taken), buf_get(&restart));
}

void reload_run(struct reload *reload)
{
    CLEANUP(buf_done) struct buf problems;
    buf_init(&problems, PROBLEMS_MAX_BYTES);
    struct tokens *fresh = NULL;
    struct config *wanted = config_load_again(reload->config, &problems);
    reload->check(reload->owner, wanted, &fresh, &problems);
    if (problems.len)
        refuse(buf_get(&problems));
    else
        take(reload, wanted, fresh);
    tokens_close(fresh);
    config_free(wanted);
}
