/* A module that notes what happens in the server, and tells of it when it is asked. It notes keys that are set, too, by a call of
 * its own. */

#include <stdio.h>
#include <stdint.h>
#include <string.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Reply Reply;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);
typedef struct { uint64_t id, version; } Event;
typedef void (*Listener)(Ctx *ctx, Event event, uint64_t subevent, void *data);

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static int (*ReplyWithSimpleString)(Ctx *ctx, const char *text);
static int (*ReplyWithCallReply)(Ctx *ctx, Reply *reply);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static Reply *(*Call)(Ctx *ctx, const char *name, const char *format, ...);
static void (*FreeCallReply)(Reply *reply);
static int (*SubscribeToServerEvent)(Ctx *ctx, Event event, Listener listener);
static int (*IsSubEventSupported)(Event event, uint64_t subevent);
static int (*SubscribeToKeyspaceEvents)(Ctx *ctx, int classes, int (*callback)(Ctx *ctx, int class, const char *event, String *key));

enum { ROLE = 0, PERSISTENCE = 1, FLUSH = 2, LOADING = 3, CLIENT = 4, REPLICA = 6, LINK = 7, CRON = 8, MODULE = 9, PROGRESS = 10, SWAP = 11, CONFIG = 16 };

static char notes[4096];
static long long connected, disconnected, crons, progressed;

static void note(const char *what, long long a, long long b) {
    size_t len = strlen(notes);
    snprintf(notes + len, sizeof notes - len, "%s(%lld,%lld) ", what, a, b);
}

static void on_event(Ctx *ctx, Event event, uint64_t subevent, void *data) {
    (void)ctx;
    switch (event.id) {
    case ROLE: {
        struct { uint64_t version; int32_t is_master; char *host; int32_t port; char *id, *id2; uint64_t offset, offset2; } *role = data;
        if (role->version == 1 && strlen(role->id) == 40 && strlen(role->id2) == 40) note(role->host[0] ? role->host : "none", (long long)subevent, role->is_master);
        break;
    }
    case REPLICA: note("replica", (long long)subevent, data != NULL); break;
    case LINK: note("link", (long long)subevent, data != NULL); break;
    case LOADING: note("load", (long long)subevent, 0); break;
    case PERSISTENCE: note("save", (long long)subevent, 0); break;
    case FLUSH: {
        struct { uint64_t version; int32_t sync, db; } *flush = data;
        note(subevent == 0 ? "flush" : "flushed", flush->db, flush->sync);
        break;
    }
    case CLIENT: {
        struct { uint64_t version, flags, id; } *client = data;
        if (client->version == 1 && client->id != 0) subevent == 0 ? connected++ : disconnected++;
        break;
    }
    case CRON: crons++; break;
    case PROGRESS: {
        struct { uint64_t version; int32_t hz, progress; } *loading = data;
        if (loading->hz > 0 && loading->progress >= -1 && loading->progress <= 1024) progressed++;
        break;
    }
    case MODULE: {
        struct { uint64_t version; const char *name; int32_t number; } *module = data;
        note(module->name, module->number, (long long)subevent);
        break;
    }
    case SWAP: {
        struct { uint64_t version; int32_t first, second; } *swap = data;
        note("swap", swap->first, swap->second);
        break;
    }
    default: note("unknown", (long long)event.id, 0);
    }
}

static int on_key(Ctx *ctx, int class, const char *event, String *key) {
    (void)class;
    if (strncmp(StringPtrLen(key, NULL), "noted", 5) == 0) return 0;
    Reply *reply = Call(ctx, "INCR", "c", strcmp(event, "keymiss") == 0 ? "noted:missed" : "noted:changed");
    FreeCallReply(reply);
    return 0;
}

/* told: what has happened since the last time. */
static int told(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    int status = ReplyWithSimpleString(ctx, notes);
    notes[0] = 0;
    return status;
}

static int count(Ctx *ctx, String **argv, int argc) {
    const char *what = argc > 1 ? StringPtrLen(argv[1], NULL) : "";
    if (strcmp(what, "connected") == 0) return ReplyWithLongLong(ctx, connected);
    if (strcmp(what, "progressed") == 0) return ReplyWithLongLong(ctx, progressed);
    return ReplyWithLongLong(ctx, strcmp(what, "cron") == 0 ? crons : disconnected);
}

/* within key: sets a key and reads one that is not there. Replies what has been noted of that before the calls returned. */
static int within(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return 1;
    FreeCallReply(Call(ctx, "SET", "sc", argv[1], "1"));
    FreeCallReply(Call(ctx, "GET", "c", "nosuchkey"));
    Reply *reply = Call(ctx, "MGET", "cc", "noted:changed", "noted:missed");
    int status = ReplyWithCallReply(ctx, reply);
    FreeCallReply(reply);
    return status;
}

static int (*GetApi)(const char *name, void *place);

static void *ask(const char *name) {
    void *function = NULL;
    char full[64];
    snprintf(full, sizeof full, "RedisModule_%s", name);
    GetApi(full, &function);
    return function;
}
#define ASK(name) name = ask(#name)

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    GetApi = *(int (**)(const char *, void *))ctx;
    ASK(SetModuleAttribs), ASK(CreateCommand), ASK(ReplyWithLongLong), ASK(ReplyWithSimpleString), ASK(ReplyWithCallReply);
    ASK(StringPtrLen), ASK(Call), ASK(FreeCallReply), ASK(SubscribeToServerEvent), ASK(IsSubEventSupported);
    ASK(SubscribeToKeyspaceEvents);
    SetModuleAttribs(ctx, "events", 1, 1);
    const uint64_t all[] = {ROLE, REPLICA, LINK, PERSISTENCE, FLUSH, LOADING, CLIENT, CRON, MODULE, PROGRESS, SWAP};
    for (size_t at = 0; at < sizeof all / sizeof *all; at++)
        if (SubscribeToServerEvent(ctx, (Event){all[at], 1}, on_event) != 0) return 1;
    if (SubscribeToServerEvent(ctx, (Event){99, 1}, on_event) == 0) return 1;
    if (!IsSubEventSupported((Event){FLUSH, 1}, 1) || IsSubEventSupported((Event){FLUSH, 1}, 2)) return 1;
    /* Strings, and keys that are not there. */
    if (SubscribeToKeyspaceEvents(ctx, 1 << 3 | 1 << 11, on_key) != 0) return 1;
    if (CreateCommand(ctx, "told", told, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "told.count", count, "readonly", 0, 0, 0) != 0) return 1;
    return CreateCommand(ctx, "told.within", within, "write", 1, 1, 1);
}
