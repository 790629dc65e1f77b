"""prototype: noise-aware leapfrog"""
from zhao import *
from ssm.recurrence import recur
from ssm import trainable as T
def interp(tab,r):
    # tab (R,K), r (R,...)
    K=tab.shape[1]; x=(r.clamp(0,1)*(K-1)); i=x.floor().clamp(max=K-2).long(); f=x-i
    flat=i.reshape(i.shape[0],-1)
    lo=tab.gather(1,flat).view_as(f); hi=tab.gather(1,flat+1).view_as(f)
    return lo+(hi-lo)*f
class Noisy(Trainable):
    def __init__(self,models,tables,pieces,digital_decay):
        super().__init__(models)
        self.register_buffer('tab',tables)       # (R,K) std relative to effective span
        self.register_buffer('pieces',pieces)    # (R,) cells per weight of pairs
        self.register_buffer('dd',digital_decay) # (R,) bool
        self.strength=1.0
        R=len(models)
        for k,l in enumerate(self.layers):
            l.register_buffer('row',torch.ones(R,*l.rate_start.shape[1:],2)); l.register_buffer('urow',torch.ones(R,l.rate_start.shape[1]))
    def pair(self,w,scale):
        if not self.training or self.strength==0: return w
        with torch.no_grad():
            s=interp(self.tab,(w/scale).abs()); s0=self.tab[:,:1].view(-1,*[1]*(w.dim()-1))
            sd=scale*torch.sqrt(s*s+s0*s0)/self.pieces.view(-1,*[1]*(w.dim()-1)).sqrt()*self.strength
            n=sd*torch.randn_like(w)
        return w+n
    def single(self,v):
        if not self.training or self.strength==0: return v
        with torch.no_grad():
            scale=torch.exp2(torch.ceil(torch.log2(v.clamp(min=2.**-16))-1e-6))
            n=scale*interp(self.tab,v/scale)*torch.randn_like(v)*self.strength
        return (v+n).clamp(min=0)
    def system(self,l):
        rate,phase=l.poles(); gain=l.gains(); gr,gi=gain.unbind(-1)
        ph=torch.remainder(phase+math.pi,2*math.pi)-math.pi
        neg=ph<0; ph=ph.abs(); gi=torch.where(neg,-gi,gi)
        back=ph>math.pi/2; th=torch.where(back,math.pi-ph,ph); gi=torch.where(back,-gi,gi)
        sg=torch.where(back,-1.,1.)
        e=2*torch.sin(th/2); d=-torch.expm1(-rate)
        e1,e2=self.single(e),self.single(e)
        d1,d2=self.single(d),self.single(d)
        dd=self.dd.view(-1,1,1); d1=torch.where(dd,d,d1).clamp(max=0.999); d2=torch.where(dd,d,d2).clamp(max=0.999)
        k1,k2=sg*(1-d1),sg*(1-d2)
        M=torch.stack([torch.stack([k1,-k1*e1],-1),torch.stack([k2*e2,k2*(1-e1*e2)],-1)],-2)
        c=torch.stack([gr,-(gi*torch.cos(th/2)+gr*torch.sin(th/2))],-1)
        col=torch.maximum((c*l.row).abs().amax((-1,-2)),(l.skip*l.urow).abs()).detach()
        cw=torch.cat([ (c*l.row).flatten(-2), (l.skip*l.urow)[...,None]],-1)
        cw=self.pair(cw,col[...,None])
        skip=cw[...,-1]/l.urow; c=cw[...,:-1].unflatten(-1,c.shape[-2:])/l.row
        return M,c,skip
    def forward(self,x):
        x=x[:,:,None,:].expand(-1,-1,self.encoder_weight.shape[0],-1)
        cm=lambda w: w.detach().abs().amax(1,keepdim=True).clamp(min=1e-9)
        h=torch.einsum('btri,rih->btrh',x,self.pair(self.encoder_weight,cm(self.encoder_weight)))+self.encoder_bias
        for l in self.layers:
            u=self._normalise(l,h) if self.norm=='pre' else h
            M,c,skip=self.system(l)
            y=recur(u.flatten(2),M.flatten(0,1),c.flatten(0,1)).unflatten(2,u.shape[2:])+u*skip
            y=F.gelu(y)
            z=torch.einsum('btrh,rhk->btrk',y,self.pair(l.mix_weight,cm(l.mix_weight)))+l.mix_bias
            h=h+F.glu(z,dim=-1)
            h=self._normalise(l,h) if self.norm=='post' else h
        h=h.mean(1)
        return torch.einsum('brh,rhc->brc',h,self.pair(self.decoder_weight,cm(self.decoder_weight)))+self.decoder_bias
    @torch.no_grad()
    def ranges(self,x):
        was=self.training; self.eval()
        x=x[:,:,None,:].expand(-1,-1,self.encoder_weight.shape[0],-1)
        h=torch.einsum('btri,rih->btrh',x,self.encoder_weight)+self.encoder_bias
        for l in self.layers:
            l.row.fill_(1); l.urow.fill_(1)
            u=self._normalise(l,h) if self.norm=='pre' else h
            M,c,skip=self.system(l)
            p2=lambda v: torch.exp2(torch.ceil(torch.log2(v.clamp(min=1e-6))))
            big=T._largest_states(u,M); l.row.copy_(p2(torch.maximum(big,big.amax((-1,-2),keepdim=True)*2.**-8))); l.urow.copy_(p2(u.abs().amax((0,1))))
            y=recur(u.flatten(2),M.flatten(0,1),c.flatten(0,1)).unflatten(2,u.shape[2:])+u*skip
            h=h+F.glu(torch.einsum('btrh,rhk->btrk',F.gelu(y),l.mix_weight)+l.mix_bias,dim=-1)
            h=self._normalise(l,h) if self.norm=='post' else h
        self.train(was)
@torch.no_grad()
def noisy_score(net,x,y,draws=3,b=250):
    net.train(); out=[]
    for d in range(draws):
        r=0
        for i in range(0,len(x),b):
            torch.manual_seed(1000+d); r=r+(net(x[i:i+b]).argmax(-1)==y[i:i+b,None]).sum(0)
        out.append((100*r/len(x)).tolist())
    return [[round(v,2) for v in o] for o in zip(*out)]
