/* A module that has users of its own, logs clients in, and calls commands by their rights. */

#include <errno.h>
#include <stddef.h>
#include <string.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct User User;
typedef struct Reply Reply;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);
typedef void (*Changed)(unsigned long client, void *data);

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static int (*ReplyWithSimpleString)(Ctx *ctx, const char *text);
static int (*ReplyWithError)(Ctx *ctx, const char *text);
static int (*ReplyWithString)(Ctx *ctx, String *string);
static int (*ReplyWithCallReply)(Ctx *ctx, Reply *reply);
static void (*AutoMemory)(Ctx *ctx);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static int (*StringToLongLong)(const String *string, long long *number);
static Reply *(*Call)(Ctx *ctx, const char *name, const char *format, ...);
static User *(*CreateModuleUser)(const char *name);
static void (*FreeModuleUser)(User *user);
static void (*SetContextUser)(Ctx *ctx, const User *user);
static int (*SetModuleUserACLString)(Ctx *ctx, User *user, const char *rules, String **error);
static int (*SetModuleUserACL)(User *user, const char *rule);
static String *(*GetModuleUserACLString)(User *user);
static void (*FreeString)(Ctx *ctx, String *string);
static String *(*GetCurrentUserName)(Ctx *ctx);
static int (*AuthenticateClientWithACLUser)(Ctx *ctx, const char *name, size_t len, Changed changed, void *data, unsigned long *client);
static int (*AuthenticateClientWithUser)(Ctx *ctx, User *user, Changed changed, void *data, unsigned long *client);
static int (*DeauthenticateAndCloseClient)(Ctx *ctx, unsigned long client);
static int (*RedactClientCommandArgument)(Ctx *ctx, int position);

static User *own;
static long long changes;
static unsigned long last_changed;

static void changed(unsigned long client, void *data) {
    last_changed = client;
    changes += *(long long *)data;
}

/* USERS.LOGIN key name: logs the client in as a user of the server. Replies with its name, as the module sees it then. */
static int login(Ctx *ctx, String **argv, int argc) {
    static long long one = 1;
    if (argc != 3) return 1;
    AutoMemory(ctx);
    size_t len;
    const char *name = StringPtrLen(argv[2], &len);
    if (AuthenticateClientWithACLUser(ctx, name, len, changed, &one, NULL) != 0) return ReplyWithError(ctx, "ERR no such user");
    return ReplyWithString(ctx, GetCurrentUserName(ctx));
}

/* USERS.OWN key: logs the client in as the module's user. Replies with the client's number. */
static int login_as_own(Ctx *ctx, String **argv, int argc) {
    static long long hundred = 100;
    (void)argv, (void)argc;
    unsigned long client = 0;
    if (AuthenticateClientWithUser(ctx, own, changed, &hundred, &client) != 0) return ReplyWithError(ctx, "ERR it is off");
    return ReplyWithLongLong(ctx, (long long)client);
}

/* USERS.RULES [rules]: changes the module's user. Replies with its rules, or with what is wrong. */
static int rules(Ctx *ctx, String **argv, int argc) {
    AutoMemory(ctx);
    String *error;
    if (argc > 1 && SetModuleUserACLString(ctx, own, StringPtrLen(argv[1], NULL), &error) != 0) return ReplyWithString(ctx, error);
    String *all = GetModuleUserACLString(own);
    ReplyWithString(ctx, all);
    FreeString(NULL, all);
    return 0;
}

/* USERS.FREE: frees the module's user, and makes another one. */
static int replace(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    FreeModuleUser(own);
    own = CreateModuleUser("own");
    return ReplyWithSimpleString(ctx, "OK");
}

/* USERS.CLOSE client */
static int close_client(Ctx *ctx, String **argv, int argc) {
    long long client = 0;
    if (argc > 1) StringToLongLong(argv[1], &client);
    int is_closed = DeauthenticateAndCloseClient(ctx, (unsigned long)client) == 0;
    return ReplyWithLongLong(ctx, is_closed);
}

/* USERS.CALL key command [arg ...]: by the rights of the client, or, with "own" for a key, of the module's user. */
static int call(Ctx *ctx, String **argv, int argc) {
    AutoMemory(ctx);
    if (strcmp(StringPtrLen(argv[1], NULL), "own") == 0) SetContextUser(ctx, own);
    Reply *reply = Call(ctx, StringPtrLen(argv[2], NULL), "CEv", argv + 3, (size_t)(argc - 3));
    return ReplyWithCallReply(ctx, reply);
}

/* USERS.CHANGES: how often a client became another user: 1 for each of USERS.LOGIN, 100 for each of USERS.OWN. */
static int count(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return ReplyWithLongLong(ctx, changes);
}

/* USERS.SECRET secret: what it is given is not shown. */
static int secret(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return ReplyWithLongLong(ctx, RedactClientCommandArgument(ctx, 1) == 0);
}

static void *ask(Ctx *ctx, const char *name) {
    int (*get_api)(const char *name, void *pointer) = *(int (**)(const char *, void *))ctx;
    void *function = NULL;
    get_api(name, &function);
    return function;
}

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    SetModuleAttribs = ask(ctx, "RedisModule_SetModuleAttribs");
    CreateCommand = ask(ctx, "RedisModule_CreateCommand");
    ReplyWithLongLong = ask(ctx, "RedisModule_ReplyWithLongLong");
    ReplyWithSimpleString = ask(ctx, "RedisModule_ReplyWithSimpleString");
    ReplyWithError = ask(ctx, "RedisModule_ReplyWithError");
    ReplyWithString = ask(ctx, "RedisModule_ReplyWithString");
    ReplyWithCallReply = ask(ctx, "RedisModule_ReplyWithCallReply");
    AutoMemory = ask(ctx, "RedisModule_AutoMemory");
    StringPtrLen = ask(ctx, "RedisModule_StringPtrLen");
    StringToLongLong = ask(ctx, "RedisModule_StringToLongLong");
    Call = ask(ctx, "RedisModule_Call");
    CreateModuleUser = ask(ctx, "RedisModule_CreateModuleUser");
    FreeModuleUser = ask(ctx, "RedisModule_FreeModuleUser");
    SetContextUser = ask(ctx, "RedisModule_SetContextUser");
    SetModuleUserACLString = ask(ctx, "RedisModule_SetModuleUserACLString");
    SetModuleUserACL = ask(ctx, "RedisModule_SetModuleUserACL");
    GetModuleUserACLString = ask(ctx, "RedisModule_GetModuleUserACLString");
    FreeString = ask(ctx, "RedisModule_FreeString");
    GetCurrentUserName = ask(ctx, "RedisModule_GetCurrentUserName");
    AuthenticateClientWithACLUser = ask(ctx, "RedisModule_AuthenticateClientWithACLUser");
    AuthenticateClientWithUser = ask(ctx, "RedisModule_AuthenticateClientWithUser");
    DeauthenticateAndCloseClient = ask(ctx, "RedisModule_DeauthenticateAndCloseClient");
    RedactClientCommandArgument = ask(ctx, "RedisModule_RedactClientCommandArgument");
    SetModuleAttribs(ctx, "users", 1, 1);
    if (CreateCommand(ctx, "users.login", login, "no-auth", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "users.own", login_as_own, "no-auth", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "users.rules", rules, "", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "users.free", replace, "", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "users.close", close_client, "", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "users.call", call, "write", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "users.changes", count, "no-auth", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "users.secret", secret, "", 0, 0, 0) != 0) return 1;
    /* While the server starts there are rules for users already. */
    own = CreateModuleUser("own");
    if (SetModuleUserACL(own, "on") != 0 || SetModuleUserACL(own, "nonsense") == 0) return 1;
    return SetModuleUserACLString(ctx, own, "+@all ~* &* -getdel", NULL);
}

int RedisModule_OnUnload(Ctx *ctx) {
    (void)ctx;
    return 0;
}
