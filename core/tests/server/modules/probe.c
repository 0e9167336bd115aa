/* A module as any C module is, by the ABI alone: it asks the first pointer of its context for each function. */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Key Key;
typedef struct Reply Reply;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithSimpleString)(Ctx *ctx, const char *text);
static int (*ReplyWithError)(Ctx *ctx, const char *text);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static int (*ReplyWithString)(Ctx *ctx, String *string);
static int (*ReplyWithNull)(Ctx *ctx);
static int (*ReplyWithCallReply)(Ctx *ctx, Reply *reply);
static int (*ReplyWithArray)(Ctx *ctx, long len);
static void (*ReplySetArrayLength)(Ctx *ctx, long len);
static int (*WrongArity)(Ctx *ctx);
static void (*AutoMemory)(Ctx *ctx);
static Key *(*OpenKey)(Ctx *ctx, String *name, int mode);
static void (*CloseKey)(Key *key);
static int (*KeyType)(Key *key);
static int (*StringSet)(Key *key, String *value);
static char *(*StringDMA)(Key *key, size_t *len, int mode);
static int (*ListPush)(Key *key, int where, String *element);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static Reply *(*Call)(Ctx *ctx, const char *name, const char *format, ...);
static int (*ReplicateVerbatim)(Ctx *ctx);
static unsigned long long (*GetClientId)(Ctx *ctx);
static String *(*GetClientCertificate)(Ctx *ctx, unsigned long long id);
static void (*FreeString)(Ctx *ctx, String *string);

enum { READ = 1, WRITE = 2 };

static void *ask(Ctx *ctx, const char *name) {
    int (*get_api)(const char *name, void *pointer) = *(int (**)(const char *, void *))ctx;
    void *function = NULL;
    get_api(name, &function);
    return function;
}

/* PROBE.PING */
static int ping(Ctx *ctx, String **argv, int argc) {
    (void)argv;
    if (argc != 1) return WrongArity(ctx);
    return ReplyWithSimpleString(ctx, "PONG");
}

/* PROBE.COPY from to: copies a string. No key spec says that the second is a key. */
static int copy(Ctx *ctx, String **argv, int argc) {
    if (argc != 3) return WrongArity(ctx);
    Key *from = OpenKey(ctx, argv[1], READ);
    if (KeyType(from) != 1) {
        CloseKey(from);
        return ReplyWithNull(ctx);
    }
    Key *to = OpenKey(ctx, argv[2], WRITE);
    size_t len;
    const char *bytes = StringDMA(from, &len, READ);
    Reply *reply = Call(ctx, "SET", "!sb", argv[2], bytes, len);
    /* Both are still open, and are as the call has left them. */
    size_t copied;
    StringDMA(to, &copied, READ);
    CloseKey(from);
    CloseKey(to);
    (void)reply;
    return ReplyWithLongLong(ctx, (long long)copied);
}

/* PROBE.CALL command [arg ...]: what the command replies. */
static int call(Ctx *ctx, String **argv, int argc) {
    if (argc < 2) return WrongArity(ctx);
    AutoMemory(ctx);
    Reply *reply = Call(ctx, StringPtrLen(argv[1], NULL), "!Ev", argv + 2, (size_t)(argc - 2));
    if (reply == NULL) return ReplyWithError(ctx, "ERR there is no reply");
    return ReplyWithCallReply(ctx, reply);
}

/* PROBE.PUSH element key [key ...]: pushes the element on each list. */
static int push(Ctx *ctx, String **argv, int argc) {
    if (argc < 3) return WrongArity(ctx);
    long pushed = 0;
    for (int at = 2; at < argc; at++) {
        Key *key = OpenKey(ctx, argv[at], READ | WRITE);
        if (ListPush(key, 1, argv[1]) == 0) pushed++;
        CloseKey(key);
    }
    ReplicateVerbatim(ctx);
    return ReplyWithLongLong(ctx, pushed);
}

/* PROBE.LIST: an array whose length is said at the end. */
static int list(Ctx *ctx, String **argv, int argc) {
    ReplyWithArray(ctx, -1);
    for (int at = 1; at < argc; at++) ReplyWithString(ctx, argv[at]);
    ReplySetArrayLength(ctx, argc - 1);
    return 0;
}

/* PROBE.CERTIFICATE [id]: what the caller, or another client, has shown; null without a certificate. */
static int certificate(Ctx *ctx, String **argv, int argc) {
    unsigned long long id = argc > 1 ? strtoull(StringPtrLen(argv[1], NULL), NULL, 10) : GetClientId(ctx);
    String *pem = GetClientCertificate(ctx, id);
    if (pem == NULL) return ReplyWithNull(ctx);
    ReplyWithString(ctx, pem);
    FreeString(ctx, pem);
    return 0;
}

/* PROBE.CRASH: writes to memory that is not there. */
static int crash(Ctx *ctx, String **argv, int argc) {
    (void)ctx, (void)argv;
    *(volatile int *)(long)(argc - 1) = 1;
    return 0;
}

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    SetModuleAttribs = ask(ctx, "RedisModule_SetModuleAttribs");
    CreateCommand = ask(ctx, "RedisModule_CreateCommand");
    ReplyWithSimpleString = ask(ctx, "RedisModule_ReplyWithSimpleString");
    ReplyWithError = ask(ctx, "RedisModule_ReplyWithError");
    ReplyWithLongLong = ask(ctx, "RedisModule_ReplyWithLongLong");
    ReplyWithString = ask(ctx, "RedisModule_ReplyWithString");
    ReplyWithNull = ask(ctx, "RedisModule_ReplyWithNull");
    ReplyWithCallReply = ask(ctx, "RedisModule_ReplyWithCallReply");
    ReplyWithArray = ask(ctx, "RedisModule_ReplyWithArray");
    ReplySetArrayLength = ask(ctx, "RedisModule_ReplySetArrayLength");
    WrongArity = ask(ctx, "RedisModule_WrongArity");
    AutoMemory = ask(ctx, "RedisModule_AutoMemory");
    OpenKey = ask(ctx, "RedisModule_OpenKey");
    CloseKey = ask(ctx, "RedisModule_CloseKey");
    KeyType = ask(ctx, "RedisModule_KeyType");
    StringSet = ask(ctx, "RedisModule_StringSet");
    StringDMA = ask(ctx, "RedisModule_StringDMA");
    ListPush = ask(ctx, "RedisModule_ListPush");
    StringPtrLen = ask(ctx, "RedisModule_StringPtrLen");
    Call = ask(ctx, "RedisModule_Call");
    ReplicateVerbatim = ask(ctx, "RedisModule_ReplicateVerbatim");
    GetClientId = ask(ctx, "RedisModule_GetClientId");
    GetClientCertificate = ask(ctx, "RedisModule_GetClientCertificate");
    FreeString = ask(ctx, "RedisModule_FreeString");
    SetModuleAttribs(ctx, "probe", 3, 1);
    /* What no server has is not found, and nothing else happens. */
    if (ask(ctx, "RedisModule_NoSuchFunction") != NULL) return 1;
    /* The first argument may ask for something that fails. */
    const char *wish = argc > 0 ? StringPtrLen(argv[0], NULL) : "";
    if (strcmp(wish, "fail") == 0) return 1;
    if (strcmp(wish, "flags") == 0) return CreateCommand(ctx, "probe.flags", ping, "write nonsense", 0, 0, 0);
    if (strcmp(wish, "taken") == 0) return CreateCommand(ctx, "get", ping, "readonly", 0, 0, 0);
    if (CreateCommand(ctx, "probe.ping", ping, "readonly fast", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "probe.copy", copy, "write deny-oom", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "probe.call", call, "write", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "probe.push", push, "write", 2, -1, 1) != 0) return 1;
    if (CreateCommand(ctx, "probe.crash", crash, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "probe.certificate", certificate, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "probe.list", list, "readonly", 0, 0, 0) != 0) return 1;
    return 0;
}
