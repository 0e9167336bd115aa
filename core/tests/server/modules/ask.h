/* How a module asks for the functions of the server: included behind the type Ctx of its context. */

static void *ask(Ctx *ctx, const char *name) {
    int (*get_api)(const char *name, void *pointer) = *(int (**)(const char *, void *))ctx;
    void *function = NULL;
    get_api(name, &function);
    return function;
}

#define ASK(name) name = ask(ctx, "RedisModule_" #name)
