from types import SimpleNamespace as N
def pools(settings): return {n: N(provider=p, slots=s) for n,p,s in (("openai","openai",20),("tripo_h","tripo",10))}
